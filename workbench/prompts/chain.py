"""Chains of thought, cut into steps.

A `ChainCase` is a decision whose answer can be asked for after any step of a chain: the question,
the chain up to there, and the cue that asks for the answer. Stages say what a step is to the
decision: "before" (of an earlier mention), "coarse" and "fine" (its own), "after" (of a later
mention), "other" (anything else, as are all steps of chains that nobody labelled).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

from workbench.errors import InputError
from workbench.prompts.chat_form import REASONING, THOUGHTS
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet, Variant
from workbench.prompts.templates import Cues, PlainTemplate
from workbench.prompts.text import check_fast

Stage = Literal["before", "coarse", "fine", "after", "other"]
STAGES: tuple[Stage, ...] = get_args(Stage)

StageReader = Callable[[int, Sequence[str]], Sequence[str]]
"""Number of a decision in its prompt, and texts of the steps of a chain → a stage for each."""

STEP_BREAKS = {"line": r"\n+", "sentence": r"(?<=[.!?])\s+|\n+"}
"""What parts two steps: line breaks, or also the blanks after a full stop, `!` or `?`.

The second knows no abbreviations: "e.g. this" is two steps.
"""

_NUMBERED = re.compile(r"\s*(\d+) (in|is)\b")


@dataclass(frozen=True)
class Chain:
    """A question and a chain of thought after it, as tokens.

    Attributes:
        question: everything before the chain.
        tokens: the chain with the cue that opens it, if any; empty for no chain.
        ends: how many of `tokens` are there after each step.
        stages: what each step is to the decision, one of `STAGES`; all "other" unless given.
        n_opening: how many of `tokens` are the cue that opens the chain.
        closed: whether it came to its end; one that ran out of room did not.

    Raises:
        InputError: no question, ends that do not rise within the chain, or stages that are unknown
            or not one per step.
    """

    question: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    stages: tuple[str, ...] = ()
    n_opening: int = 0
    closed: bool = True

    def __post_init__(self) -> None:
        if not self.question:
            raise InputError("a chain needs a question of at least one token")
        borders = (0, *self.ends, len(self.tokens) + 1)
        if any(a >= b for a, b in pairwise(borders)):
            raise InputError(
                f"ends {list(self.ends)} of the steps must rise from 1 to the chain's "
                f"{len(self.tokens)} tokens"
            )
        if not self.stages:
            object.__setattr__(self, "stages", ("other",) * len(self.ends))
        if len(self.stages) != len(self.ends) or not set(self.stages) <= set(STAGES):
            raise InputError(
                f"{len(self.ends)} steps need a stage each, of {', '.join(STAGES)}; got "
                f"{list(self.stages)}"
            )

    @property
    def n_steps(self) -> int:
        """Steps of the chain."""
        return len(self.ends)

    @property
    def own_step(self) -> int | None:
        """Number, from 1, of the first coarse step; None where no step is labelled so."""
        return self.stages.index("coarse") + 1 if "coarse" in self.stages else None

    def kept(self, step: int) -> int:
        """How many tokens of the chain are there after a step; none after step 0."""
        return self.ends[step - 1] if step else 0

    def places(self, step: int) -> range:
        """Indices into `tokens` of a step from 1, with the break before it, without the opening."""
        return range(max(self.n_opening, self.kept(step - 1)), self.kept(step))

    def up_to(self, step: int) -> list[int]:
        """Question and chain up to the end of a step; step 0 is the question alone."""
        return [*self.question, *self.tokens[: self.kept(step)]]


@dataclass(frozen=True)
class ChainCase:
    """A decision that can be asked for after any step of a chain.

    Attributes:
        event: its options and their roles; its prompts are the direct question, without a chain.
        cue: tokens that ask for the answer, with the answers that come before this decision.
        chains: the chain of each variant; only "clean" is needed for trajectories.
        options: tokens of every option where they are not one token each; otherwise the event's.

    Raises:
        InputError: no clean chain, or not one token or more for every option.
    """

    event: DecisionEvent
    cue: tuple[int, ...]
    chains: Mapping[Variant, Chain] = field(repr=False)
    options: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        where = f"prompt {self.event.id!r} event {self.event.event}"
        if "clean" not in self.chains:
            raise InputError(f"{where}: has no chain for the clean prompt")
        if self.options and len(self.options) != len(self.event.options):
            raise InputError(
                f"{where}: tokens of {len(self.options)} options, but it has "
                f"{len(self.event.options)}"
            )
        if not all(self.options):
            raise InputError(f"{where}: an option has no tokens")

    @property
    def clean(self) -> Chain:
        """The chain of the prompt itself."""
        return self.chains["clean"]

    def option_tokens(self) -> list[tuple[int, ...]]:
        """Tokens of every option, in order."""
        return list(self.options) or [(token,) for token in self.event.option_tokens]


def step_spans(text: str, split: str = "line") -> list[tuple[int, int]]:
    """Half-open character spans of the steps of a chain, without the breaks between them.

    `split` is a name in `STEP_BREAKS`. Steps that are blank do not count.

    Raises:
        InputError: an unknown way to split.
    """
    if split not in STEP_BREAKS:
        raise InputError(f"steps split by {split!r}, must be one of {', '.join(STEP_BREAKS)}")
    spans, start = [], 0
    breaks = [match.span() for match in re.finditer(STEP_BREAKS[split], text)]
    for end, after in [*breaks, (len(text), len(text))]:
        if text[start:end].strip():
            spans.append((start, end))
        start = after
    return spans


def make_chain(
    tokenizer: Any,
    question: Sequence[int],
    written: str | Sequence[int],
    *,
    opening: Sequence[int] = (),
    split: str = "line",
    stages: StageReader | None = None,
    event: int = 0,
    closed: bool = True,
) -> Chain:
    """A chain with its steps found.

    Args:
        tokenizer: a Hugging Face tokenizer of the fast kind.
        question: tokens before the chain.
        written: the chain, as text (tokenized by itself; the text of a control token is read as
            text) or as tokens.
        opening: tokens of a cue that opens the chain and is no step.
        split: what parts two steps, see `STEP_BREAKS`. A token across a break ends the step.
        stages: says what each step is to a decision; all "other" unless given.
        event: number of the decision.
        closed: whether the chain came to its end.

    Raises:
        InputError: the tokenizer is not of the fast kind, or what `Chain` and `step_spans` refuse.
    """
    check_fast(tokenizer)
    if isinstance(written, str):
        encoding = tokenizer(
            written,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        text, tokens = written, list(encoding["input_ids"])
        ends_of_tokens = [end for _, end in encoding["offset_mapping"]]
    else:
        tokens = list(written)
        text, ends_of_tokens = decoded(tokenizer, tokens)
    spans = step_spans(text, split)
    places = [_first_reaching(ends_of_tokens, end) + 1 for _, end in spans]
    kept = [i for i, place in enumerate(places) if place not in places[:i]]
    texts = [text[slice(*spans[i])] for i in kept]
    read = tuple(stages(event, texts)) if stages else ()
    ends = tuple(len(opening) + places[i] for i in kept)
    return Chain(tuple(question), (*opening, *tokens), ends, read, len(opening), closed)


def decoded(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[int]]:
    """Text of some tokens and the character behind each."""
    text = tokenizer.decode(tokens)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if list(encoding["input_ids"]) == list(tokens):
        return text, [end for _, end in encoding["offset_mapping"]]
    # A model may write a text in other tokens than the tokenizer would.
    return text, [len(tokenizer.decode(tokens[: i + 1])) for i in range(len(tokens))]


def _first_reaching(ends: Sequence[int], place: int) -> int:
    return next((i for i, end in enumerate(ends) if end >= place), len(ends) - 1)


def numbered_stages(event: int, steps: Sequence[str]) -> list[str]:
    """What steps by number of the mention are to the decision about mention `event` (from 0).

    `k in …` is the coarse step of mention k, counted from 1, and `k is …` its fine step.
    """
    stages = []
    for step in steps:
        found = _NUMBERED.match(step)
        if found is None:
            stages.append("other")
        elif (number := int(found[1]) - 1) == event:
            stages.append("coarse" if found[2] == "in" else "fine")
        else:
            stages.append("before" if number < event else "after")
    return stages


def find_cues(prompts: PromptSet, tokenizer: Any) -> Cues:
    """The cues of the template that the prompts were made with; the plain one's for unknown ones.

    The answer cue of the first prompt says which.
    """
    tokens = prompts.events[0].clean[-prompts.events[0].aligned_suffix :]
    return next(
        (
            cues
            for cues in (THOUGHTS, REASONING)
            if find_last(tokens, tokenizer, cues.answer) is not None
        ),
        PlainTemplate.cues,
    )


def question_cases(
    prompts: PromptSet, tokenizer: Any, cues: Cues = PlainTemplate.cues
) -> list[ChainCase]:
    """Cases without chains, for chains to be written: each prompt is cut before its answer cue.

    What follows the last answer cue of a prompt (the answers before this decision) belongs to the
    cue.

    Raises:
        InputError: a prompt without the answer cue in the tokens that its variants share, or with a
            chain.
    """
    cases = []
    for event in prompts:
        start = find_last(event.clean, tokenizer, cues.answer)
        n_cue = 0 if start is None else len(event.clean) - start
        if not 0 < n_cue <= event.aligned_suffix:
            raise InputError(
                f"prompt {event.id!r} event {event.event}: no answer cue {cues.answer!r} in the "
                "tokens that its variants share"
            )
        if find_last(event.clean[:-n_cue], tokenizer, PlainTemplate.reason_cue) is not None:
            raise InputError(
                f"prompt {event.id!r} event {event.event}: holds a chain already, so that none can "
                "be written for it"
            )
        questions: dict[Variant, Chain] = {
            name: Chain(event.variant(name)[:-n_cue]) for name in VARIANTS
        }
        cases.append(ChainCase(event, event.clean[-n_cue:], questions))
    return cases


def find_last(tokens: Sequence[int], tokenizer: Any, cue: str) -> int | None:
    """Where a cue starts last; None if it is not there."""
    wanted = tokenizer(cue, add_special_tokens=False)["input_ids"]
    for place in reversed(range(len(tokens) - len(wanted) + 1)):
        if list(tokens[place : place + len(wanted)]) == list(wanted):
            return place
    return None
