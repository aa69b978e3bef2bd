"""What a model answers: each option's probability, also with heads switched off or exchanged."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.option_mass import FLOOR
from workbench.analysis.readout import Roles, focus_confusion, widen
from workbench.errors import InputError
from workbench.heads import Head, as_head, head_name
from workbench.markup import ROLE_COLOUR, Bar, table
from workbench.models.answers import option_log_probs
from workbench.models.hooked import HookedModel
from workbench.models.hooks import Hook, replace_z
from workbench.prompts.prompt import VARIANTS, DecisionEvent, Variant
from workbench.prompts.text import check_fast

Ablation = Literal["zero", "mean"]
Heads = Iterable[Head | str] | Mapping[Any, Ablation]


@dataclass(frozen=True, eq=False)
class Answer:
    """The options at one decision.

    Attributes:
        table: one row an option, in their order: label, role ("" of a plain text's), p among the
            options (of an event among gold, near and far; NaN for other), logit (of options of
            several tokens: log-probability).
        focus: p(gold) + p(near); NaN of a plain text.
        confusion: p(near) / (p(gold) + p(near)); NaN of a plain text.
        mass: probability of all options together among everything that the model could say next.
        changed: what was done to heads, in words.
    """

    table: pd.DataFrame
    focus: float
    confusion: float
    mass: float
    changed: tuple[str, ...] = ()

    def _line(self) -> str:
        phases = f"Focus {self.focus:.3f}, Confusion {self.confusion:.3f}; "
        changed = f"; {', '.join(self.changed)}" if self.changed else ""
        held = f"the options hold {self.mass:.3f} of the probability{changed}"
        if self.mass < FLOOR and not any(self.table["role"]):
            held += "; is a space missing before them, or does the text end in one?"
        return held if math.isnan(self.focus) else phases + held

    def __repr__(self) -> str:
        return f"{self._line()}\n{self.table.round(3).to_string(index=False)}"

    def _repr_html_(self) -> str:
        rows = [
            {
                "option": row["label"],
                "role": row["role"],
                "p": "" if pd.isna(row["p"]) else Bar(row["p"], _colour(row["role"])),
                "logit": f"{row['logit']:.2f}",
            }
            for row in self.table.to_dict("records")
        ]
        return f"<div>{self._line()}</div>{table(rows)}"


def _colour(role: str) -> str:
    return ROLE_COLOUR.get(role, "#5a6a7a")


@torch.no_grad()
def answer(
    model: HookedModel,
    asked: DecisionEvent | str,
    options: Sequence[str] | None = None,
    *,
    ablate: Heads | str = (),
    patch: Mapping[Any, Variant] | None = None,
    variant: Variant = "clean",
) -> Answer:
    """How probable each option is, at a decision event or after a text.

    Args:
        model: the model.
        asked: a decision event, or a text that the options go on with.
        options: after a text, what may follow, letter by letter: `" A"` and `"A"` are two things.
            Options may have several tokens.
        ablate: heads ("3-0" or (3, 0)) whose output is zero at every token; as a mapping, "mean"
            takes its mean over the tokens of this prompt instead.
        patch: heads whose output over the aligned suffix is that of another variant of the event:
            `{"3-0": "far"}`.
        variant: which variant of the event is run.

    Raises:
        InputError: a text without options or an event with them, options that are no continuation
            or the same one, a head that is not there or is both ablated and patched, a patch of a
            text, or what the model cannot run.
    """
    if isinstance(asked, DecisionEvent):
        if options is not None:
            raise InputError("an event has options of its own; options= is for a text")
        _check_variant(variant)
        tokens = list(asked.variant(variant))
        added = [[token] for token in asked.option_tokens]
        named = [(option.label, str(option.role)) for option in asked.options]
    else:
        if not options or isinstance(options, str) or {*map(type, options)} != {str}:
            raise InputError('a text needs options=, the texts that may follow: [" A", " B"]')
        if patch or variant != "clean":
            raise InputError("a text has no variants to patch from; give a decision event")
        tokens = model.to_tokens(asked)
        added = _continuations(model, asked, options)
        named = [(option, "") for option in options]
    model.check_sequences([tokens])
    model.check_sequences(added)
    hooks, changed = _hooks(model, asked, tokens, ablate, patch or {}, variant)
    logits, mass = _logits(model, tokens, added, hooks)
    if logits.isnan().any():
        raise InputError(f"model {model.info.name!r} gives logits that are no numbers here")
    scored = torch.ones(len(named), dtype=torch.bool)
    focus = confusion = float("nan")
    if isinstance(asked, DecisionEvent):
        roles = Roles.of(asked)
        scored = roles.scored
        focus, confusion = (float(value) for value in focus_confusion(logits, roles))
    p = logits.masked_fill(~scored, -torch.inf).softmax(dim=-1)
    made = pd.DataFrame(named, columns=["label", "role"])
    made["p"] = p.masked_fill(~scored, torch.nan).double().numpy()
    made["logit"] = logits.double().numpy()
    return Answer(made, focus, confusion, mass, tuple(changed))


def _check_variant(name: str) -> None:
    if name not in VARIANTS:
        raise InputError(f"variant {name!r} is not one of {', '.join(VARIANTS)}")


def _continuations(model: HookedModel, text: str, options: Sequence[str]) -> list[list[int]]:
    """The tokens by which each option lengthens the text."""
    tokenizer: Any = model.tokenizer
    check_fast(tokenizer)
    alone, *rows = tokenizer(
        [text, *(text + option for option in options)], add_special_tokens=False
    )["input_ids"]
    added: list[list[int]] = []
    for at, row in enumerate(rows):
        if row[: len(alone)] != alone:
            raise InputError(
                f"options[{at}] merges with the end of the text; put the space before the option, "
                "not behind the text"
            )
        added.append(row[len(alone) :])
        if not added[at]:
            raise InputError(f"options[{at}] is empty")
        if (first := added.index(added[at])) != at:
            raise InputError(f"options[{first}] and options[{at}] are the same tokens")
    return added


def _hooks(
    model: HookedModel,
    asked: DecisionEvent | str,
    tokens: Sequence[int],
    ablate: Heads | str,
    patch: Mapping[Any, Variant],
    variant: Variant,
) -> tuple[list[Hook], list[str]]:
    """What replaces heads' outputs, and what it does in words."""
    if isinstance(ablate, str):
        ablate = ablate.split(",")
    how = ablate if isinstance(ablate, Mapping) else dict.fromkeys(ablate, "zero")
    off = {as_head(head): kind for head, kind in how.items()}
    exchanged: dict[Head, Variant] = {as_head(head): name for head, name in patch.items()}
    for head in (*off, *exchanged):
        model.check_head(*head)
    if len(off) < len(how) or len(exchanged) < len(patch):
        raise InputError('a head is named twice, as "3-0" and as (3, 0)')
    if both := sorted(set(off) & set(exchanged)):
        raise InputError(f"head {head_name(*both[0])} is ablated and patched; one can be done")
    for head, kind in off.items():
        if kind not in ("zero", "mean"):
            raise InputError(f"head {head_name(*head)}: ablate by {kind!r}, not zero or mean")
    for head, source in exchanged.items():
        _check_variant(source)
        if source == variant:
            raise InputError(f"head {head_name(*head)}: this run is the {source} one itself")
    rows: dict[Variant, Sequence[int]] = {variant: tokens}
    if isinstance(asked, DecisionEvent):
        rows |= {name: asked.variant(name) for name in VARIANTS}
    taken = exchanged.copy()
    for head, kind in off.items():
        if kind == "mean":
            taken[head] = variant
    outputs = _outputs(model, rows, taken)
    hooks, changed = [], []
    for (layer, head), kind in off.items():
        z = outputs[layer, head].mean(dim=0) if kind == "mean" else torch.zeros(1)
        hooks.append(replace_z(layer, (slice(None), slice(None), head), z))
        changed.append(f"{head_name(layer, head)} ablated ({kind})")
    for (layer, head), source in exchanged.items():
        n = asked.aligned_suffix if isinstance(asked, DecisionEvent) else 0
        at = slice(len(tokens) - n, len(tokens))
        hooks.append(replace_z(layer, (slice(None), at, head), outputs[layer, head][-n:]))
        changed.append(f"{head_name(layer, head)} from {source}")
    return hooks, changed


def _outputs(
    model: HookedModel, rows: Mapping[Variant, Sequence[int]], taken: Mapping[Head, Variant]
) -> dict[Head, Float[Tensor, "position d_head"]]:
    """Heads' outputs in the runs of the variants that they are taken from."""
    found = {}
    for name in set(taken.values()):
        heads = [head for head, source in taken.items() if source == name]
        at = {layer: f"blocks.{layer}.attn.hook_z" for layer, _ in heads}
        [run] = model.run([rows[name]], list(at.values()))
        found |= {head: run.activations[at[head[0]]][:, head[1]] for head in heads}
    return found


def _logits(
    model: HookedModel, tokens: Sequence[int], added: Sequence[Sequence[int]], hooks: Sequence[Hook]
) -> tuple[Float[Tensor, " option"], float]:
    """Logits of options of one token each, else log-probabilities; and the mass of all."""
    if all(len(option) == 1 for option in added):
        ids = torch.tensor([list(tokens)], device=model.device)
        every = widen(model.logits_at(ids, [len(tokens) - 1], hooks)[0, 0])
        logits = every[[option[0] for option in added]]
        return logits.cpu(), float((logits.logsumexp(-1) - every.logsumexp(-1)).exp())
    if hooks:
        found = torch.stack([_log_prob(model, tokens, option, hooks) for option in added])
    else:
        found = option_log_probs(model, tokens, added)
    return found.cpu(), float(found.exp().sum())


def _log_prob(
    model: HookedModel, tokens: Sequence[int], option: Sequence[int], hooks: Sequence[Hook]
) -> Float[Tensor, ""]:
    """Log-probability of an option whose tokens are read in a run with hooks."""
    whole = [*tokens, *option[:-1]]
    model.check_sequences([whole])
    ids = torch.tensor([whole], device=model.device)
    logits = model.logits_at(ids, range(len(tokens) - 1, len(whole)), hooks)[0]
    steps = widen(logits).log_softmax(dim=-1)
    return steps.gather(1, torch.tensor(list(option), device=steps.device)[:, None]).sum()
