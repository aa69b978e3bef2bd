"""Records of a multi-label prompt: options, decision events, and checked sets of them.

Words are those of the prompt-file format. A *decision event* is a position whose next token
selects one *option*; it comes with two counterfactual prompts in which the evidence supports a far
or a near option instead. The three variants end in the same `aligned_suffix` tokens: patches happen
there.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.models.pieces import Pieces

Role = Literal["gold", "near", "far", "other"]
Variant = Literal["clean", "far", "near"]
Span = tuple[int, int]
"""Half-open token positions in the clean prompt."""

ROLES: tuple[Role, ...] = get_args(Role)
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class Option:
    """One label on offer: `token` selects it at the decision, `span` holds its description.

    `family` names the options that it stands with, where that is known: gold's are the near ones.
    """

    label: str
    token: int
    role: Role
    span: Span
    family: str | None = None


@dataclass(frozen=True)
class DecisionEvent:
    """One decision of one prompt, with its two counterfactuals.

    The decision token is the last token of each variant. `evidence` and the options' spans index
    into `clean`. Several events may belong to the same prompt `id`. `fine_evidence` is what tells
    gold from its near misses, where that is another place than `evidence`. `family` names the
    gold label's family, where the label space knows it. `tokenizer`, of the model that the prompt
    is for, gives its text; it is no part of what an event is, and never written to a file.

    Raises:
        InputError: an event below 0, a variant that is empty or equal to another, a span outside
            the prompt, options that share a token or a label, a blank label, no or several gold
            options, an option role that is unknown, families that are not those of the roles or of
            some options only, or variants that do not share the suffix.
    """

    id: str
    event: int
    clean: tuple[int, ...]
    far: tuple[int, ...]
    near: tuple[int, ...]
    aligned_suffix: int
    evidence: Span
    options: tuple[Option, ...]
    fine_evidence: Span | None = None
    family: str | None = None
    tokenizer: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = f"prompt {self.id!r} event {self.event}"
        if self.event < 0:
            raise InputError(f"{where}: events count from 0")
        self._check_spans(where)
        self._check_options(where)
        self._check_suffix(where)
        self._check_variants(where)

    def _check_variants(self, where: str) -> None:
        named: dict[tuple[int, ...], str] = {}
        for name in VARIANTS:
            tokens = self.variant(name)
            if min(tokens) < 0:
                raise InputError(f"{where}: variant {name!r} has a token below 0")
            same = named.setdefault(tokens, name)
            if same != name:
                raise InputError(
                    f"{where}: variants {same!r} and {name!r} are the same tokens; each needs "
                    "evidence of its own"
                )

    def _check_spans(self, where: str) -> None:
        for name in VARIANTS:
            if not self.variant(name):
                raise InputError(f"{where}: variant {name!r} is empty")
        spans = [("evidence", self.evidence)]
        spans += [("fine_evidence", self.fine_evidence)] if self.fine_evidence else []
        spans += [(f"options[{at}].span", option.span) for at, option in enumerate(self.options)]
        for name, (start, end) in spans:
            if not 0 <= start < end <= len(self.clean):
                raise InputError(
                    f"{where}: {name} [{start}, {end}] is outside the clean prompt of "
                    f"{len(self.clean)} tokens or empty"
                )

    def _check_options(self, where: str) -> None:
        place_of: dict[int, int] = {}
        place_of_label: dict[str, int] = {}
        for at, option in enumerate(self.options):
            if option.role not in ROLES:
                raise InputError(f"{where}: options[{at}].role is not one of {', '.join(ROLES)}")
            if option.token < 0:
                raise InputError(f"{where}: options[{at}].token is {option.token}, below 0")
            if option.token in place_of:
                raise InputError(
                    f"{where}: options[{place_of[option.token]}] and options[{at}] share "
                    f"token {option.token}"
                )
            place_of[option.token] = at
            if not option.label.strip():
                raise InputError(f"{where}: options[{at}].label is blank")
            first = place_of_label.setdefault(option.label, at)
            if first != at:
                raise InputError(f"{where}: options[{first}] and options[{at}] are one label")
        count = {role: len(self.with_role(role)) for role in ROLES}
        if count["gold"] != 1 or not count["near"] or not count["far"]:
            raise InputError(
                f"{where}: needs exactly one gold option, and near and far ones; got "
                + ", ".join(f"{number} {role}" for role, number in count.items())
            )
        self._check_families(where)

    def _check_families(self, where: str) -> None:
        named = [option.family is not None for option in self.options]
        if any(named) and not all(named):
            raise InputError(
                f"{where}: options[{named.index(False)}] has no family, others have; name the "
                "family of every option or of none"
            )
        home = self.options[self.with_role("gold")[0]].family
        for at, option in enumerate(self.options):
            if home is None or option.role == "other":
                continue
            if (option.family == home) != (option.role in ("gold", "near")):
                needed = "not be" if option.role == "far" else "be"
                raise InputError(
                    f"{where}: options[{at}].family must {needed} gold's: its role is {option.role}"
                )

    def _check_suffix(self, where: str) -> None:
        n = self.aligned_suffix
        if n < 1:
            raise InputError(f"{where}: aligned_suffix is {n}, must be at least 1")
        for name in VARIANTS:
            tokens = self.variant(name)
            if len(tokens) < n or tokens[-n:] != self.clean[-n:]:
                raise InputError(
                    f"{where}: variant {name!r} does not share the last {n} tokens with 'clean'"
                )

    def variant(self, name: Variant) -> tuple[int, ...]:
        """Token ids of one variant."""
        return {"clean": self.clean, "far": self.far, "near": self.near}[name]

    @property
    def longest(self) -> tuple[int, ...]:
        """Token ids of the longest variant."""
        return max((self.variant(name) for name in VARIANTS), key=len)

    @property
    def needed_tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            InputError: the event has none.
        """
        if self.tokenizer is None:
            raise InputError(
                f"prompt {self.id!r} event {self.event} has token ids alone: read the file with "
                "model=, or give its prompts with_tokenizer(model)"
            )
        return self.tokenizer

    def pieces(self, variant: Variant = "clean") -> "Pieces":
        """The text of a variant, token by token, with the places of tokens in it.

        Raises:
            InputError: the event has no tokenizer.
        """
        from workbench.models.pieces import Pieces

        if variant not in self._pieces:
            self._pieces[variant] = Pieces(self.needed_tokenizer, self.variant(variant))
        return self._pieces[variant]

    @cached_property
    def _pieces(self) -> "dict[Variant, Pieces]":
        """Of the variants that were asked for."""
        return {}

    def text(self, variant: Variant = "clean") -> str:
        """The text of a variant, control tokens written out.

        Raises:
            InputError: the event has no tokenizer.
        """
        return self.pieces(variant).text

    def str_tokens(self, variant: Variant = "clean") -> list[str]:
        """One string for each token of a variant; joined they are its text.

        Of tokens that share the bytes of one character the last holds it, the others are empty.

        Raises:
            InputError: the event has no tokenizer.
        """
        return self.pieces(variant).strings

    def edit(self, old: str, new: str, *, occurrence: int | None = None) -> "DecisionEvent":
        """The event with other words in its text, spans carried along.

        Outside of what tells the variants apart all three are changed, in the evidence the clean
        one alone. `occurrence`, from 0, says which `old` is meant where there are several.

        Raises:
            InputError: the event has no tokenizer, `old` is not in the clean text or several
                times, or what `workbench.prompts.edits.edit_at` refuses.
        """
        from workbench.prompts.edits import edit

        return edit(self, old, new, occurrence=occurrence)

    def __repr__(self) -> str:
        from workbench.prompts.shown import describe

        return f"<{describe(self)}>"

    def _repr_html_(self) -> str:
        from workbench.prompts.shown import event_html

        return event_html(self)

    def with_role(self, role: Role) -> list[int]:
        """Indices into `options` of those with this role."""
        return [index for index, option in enumerate(self.options) if option.role == role]

    @property
    def option_tokens(self) -> list[int]:
        """Token id of every option, in order of `options`."""
        return [option.token for option in self.options]


def as_event(given: Any) -> DecisionEvent:
    """The event that a function takes.

    Raises:
        InputError: something else was given, such as a text or a set of prompts.
    """
    if not isinstance(given, DecisionEvent):
        raise InputError(
            f"a decision event is needed, such as prompts.events[0], not a {type(given).__name__}"
        )
    return given


@dataclass(frozen=True)
class PromptSet:
    """Decision events of one task, in order.

    Raises:
        InputError: no events at all, or the same (id, event) twice.
    """

    task: str
    events: tuple[DecisionEvent, ...]

    def __post_init__(self) -> None:
        if not self.events:
            raise InputError(f"prompt set {self.task!r} holds no events")
        seen: set[tuple[str, int]] = set()
        for item in self.events:
            if (item.id, item.event) in seen:
                raise InputError(f"prompt {item.id!r} event {item.event} occurs twice")
            seen.add((item.id, item.event))

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        from workbench.prompts.shown import describe_set

        return f"<{describe_set(self)}>"

    def _repr_html_(self) -> str:
        from workbench.prompts.shown import set_html

        return set_html(self)

    def __iter__(self) -> Iterator[DecisionEvent]:
        return iter(self.events)

    @property
    def prompt_ids(self) -> list[str]:
        """Distinct prompt ids in order of first appearance."""
        return list(dict.fromkeys(item.id for item in self.events))

    @property
    def families(self) -> dict[str, str]:
        """Prompt id → the first prompt of its family.

        Prompts whose gold labels are of one family are of one; so are prompts that share a label
        which is gold or near, whatever they say of families, and those that a third one links.
        """
        first: dict[str, str] = {name: name for name in self.prompt_ids}

        def root(name: str) -> str:
            while first[name] != name:
                name = first[name]
            return name

        holder: dict[tuple[str, str], str] = {}
        for item in self.events:
            near = [x.label for x in item.options if x.role in ("gold", "near")]
            keys = [("label", label) for label in near]
            for key in keys + ([("family", item.family)] if item.family is not None else []):
                one, other = root(item.id), root(holder.setdefault(key, item.id))
                first[one] = other
        return {name: root(name) for name in first}

    def subset(self, ids: Sequence[str]) -> "PromptSet":
        """Events of these prompts only."""
        wanted = set(ids)
        return PromptSet(self.task, tuple(item for item in self.events if item.id in wanted))

    def with_tokenizer(self, source: Any) -> "PromptSet":
        """The same events with a tokenizer: a Hugging Face one, or that of a `HookedModel`.

        Raises:
            InputError: the model has none.
        """
        tokenizer = source if callable(getattr(source, "decode", None)) else source.tokenizer
        if tokenizer is None:
            raise InputError("the model has no tokenizer, so prompts get no text from it")
        events = tuple(replace(item, tokenizer=tokenizer) for item in self.events)
        return PromptSet(self.task, events)

    @property
    def sha256(self) -> str:
        """Hash of the events as written to a prompt file: the hash of that file."""
        digest = hashlib.sha256()
        for item in self.events:
            digest.update(json.dumps(to_json(item), separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()


def to_json(event: DecisionEvent) -> dict[str, object]:
    """The event as one object of the prompt-file format (token ids)."""
    return {
        "id": event.id,
        "event": event.event,
        **{name: {"input_ids": list(event.variant(name))} for name in VARIANTS},
        "aligned_suffix": event.aligned_suffix,
        "evidence": list(event.evidence),
        **({"fine_evidence": list(event.fine_evidence)} if event.fine_evidence else {}),
        **({} if event.family is None else {"family": event.family}),
        "options": [_option_to_json(option) for option in event.options],
    }


def _option_to_json(option: Option) -> dict[str, object]:
    known: dict[str, object] = {
        name: value for name, value in vars(option).items() if value is not None
    }
    return known | {"span": list(option.span)}
