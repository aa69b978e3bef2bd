"""Heads patched while the model writes its chain freely; then the answer is read.

1. The source variant writes its chain, greedily, and is run once more: its heads' outputs, or
   attention rows, at the query before each chain token.
2. The base variant writes its own chain, once for each set of heads, all sets of one run side by
   side. At the query before the i-th chain token, the set's heads get what the source had before
   its i-th, as long as that query is wanted and the source wrote as far.
   It may write twice as much as the longest chain of the unpatched variants.
3. Behind what was written the answer is asked for by the cue. The chain's queries are patched as
   they were while it was written; the cue's are not.

Attention rows have the question's keys by `alignment`, and the chain's by their number. Places:

    written_early  queries before the source's first `n_early` chain tokens, before its t*
    written_late   those from t* on
    written        all
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.curves.scenes import Scene, chain_tokens, check_chains
from workbench.analysis.patching.alignment import Alignment
from workbench.analysis.patching.transplants import PlainRun
from workbench.analysis.readout import widen
from workbench.heads import Head
from workbench.models.branches import AnyEdit, Branch, Edit, PatternEdit
from workbench.models.forked import forked_forward
from workbench.models.greedy import end_tokens, generated
from workbench.models.hooked import HookedModel
from workbench.models.hooks import Hook
from workbench.models.reference import check_patterns
from workbench.prompts.chain import ChainCase
from workbench.prompts.prompt import Variant
from workbench.prompts.templates import Cues

WRITTEN = {"written_early": ("early",), "written_late": ("late",), "written": ("early", "late")}
"""Place → the parts of the source's chain whose queries are patched."""
AT_ONCE = 64
"""Sets of heads that write side by side."""


@dataclass(frozen=True)
class WrittenScene(Scene):
    """A scene in which every patched run writes a chain of its own."""

    case: ChainCase = None  # pyright: ignore[reportAssignmentType]
    closing: Sequence[int] = ()
    room: int = 0

    @property
    def model(self) -> HookedModel:
        """That writes."""
        return self.runs["clean"].model

    def positions(self, run: tuple[Variant, Variant]) -> tuple[int, int]:
        """Chain tokens of the source; whether as many are written, each set of heads decides."""
        n = len(self.wanted[run[1]])
        return n, n

    def patched(
        self, run: tuple[Variant, Variant], groups: Sequence[Sequence[Head]], intervention: str
    ) -> Float[Tensor, "group option"]:
        """Option logits after each group's own chain."""
        base, source = run
        gifts = _Gifts(self, base, source, intervention)
        rows = []
        for first in range(0, len(groups), AT_ONCE):
            part = groups[first : first + AT_ONCE]
            chains = gifts.write(part)
            branches = [
                self._asked(base, chain, gifts.edits(group, len(chain)))
                for group, chain in zip(part, chains, strict=True)
            ]
            prefix = gifts.question[:-1]
            columns = self.event.option_tokens
            rows += forked_forward(self.model, prefix, branches, columns=columns, last_only=True)
        return widen(torch.cat(rows)).cpu()

    def _asked(self, base: Variant, chain: Sequence[int], edits: Sequence[AnyEdit]) -> Branch:
        """From the last token of the opening on, which is the query before the first."""
        question = opened(self.case, base)
        return Branch(len(question) - 1, [question[-1], *chain, *self.case.cue], edits)


def written_scenes(
    model: HookedModel,
    case: ChainCase,
    places: Sequence[str],
    cues: Cues,
    *,
    n_early: int = 30,
    t_star: float = 0.5,
) -> Iterator[WrittenScene]:
    """Scenes of a case whose chains the model has written itself.

    Raises:
        InputError: a variant without a chain, an option of several tokens, or a model whose
            patterns cannot be replaced.
    """
    check_chains(case)
    check_patterns(model)
    runs = {}
    for name, chain in case.chains.items():
        tokens = [*chain.up_to(chain.n_steps), *case.cue]
        runs[name] = PlainRun.of(model, tokens, len(tokens) - len(opened(case, name)) + 1)
    tokenizer: Any = model.tokenizer
    closing = tokenizer(cues.closing, add_special_tokens=False)["input_ids"]
    for place in (place for place in WRITTEN if place in places):
        wanted: dict[Variant, Sequence[int]] = {
            name: [
                token - chain.n_opening
                for part in WRITTEN[place]
                for token in chain_tokens(chain, part, n_early=n_early, t_star=t_star)
            ]
            for name, chain in case.chains.items()
        }
        if all(wanted.values()):
            longest = max(chain.kept(chain.n_steps) for chain in case.chains.values())
            room = min(cues.room, 2 * longest)
            closed = {"closing": tuple(closing), "room": room}
            yield WrittenScene(case.event, place, runs, wanted, case=case, **closed)


def opened(case: ChainCase, name: Variant) -> list[int]:
    """Question and the cue that opens the chain."""
    chain = case.chains[name]
    return [*chain.question, *chain.tokens[: chain.n_opening]]


class _Gifts:
    """What heads of the base get from the source before each chain token."""

    def __init__(
        self, scene: WrittenScene, base: Variant, source: Variant, intervention: str
    ) -> None:
        self.scene, self.model = scene, scene.model
        self.to, self.out_of = scene.runs[base], scene.runs[source]
        self.question, theirs = opened(scene.case, base), opened(scene.case, source)
        self.pattern = intervention == "pattern"
        # The query before chain token i; the plain runs are kept from the first of them on.
        self.wanted = set(scene.wanted[source])
        self.sizes = Alignment.of(self.question, theirs).sizes
        self.known: dict[tuple[int, int], Tensor] = {}
        if self.pattern:  # a run inside a hooked run would be hooked too
            self.theirs, self.own = self.out_of.rows, self.to.rows

    def row(self, layer: int, step: int) -> Float[Tensor, "head key"]:
        """Attention rows of all heads of a layer before a chain token, over the base's keys."""
        if (layer, step) not in self.known:
            alignment = Alignment((*self.sizes, *[(1, 1)] * step))
            theirs = self.theirs[layer][:, step, : len(alignment.of_source)]
            own_step = min(step, len(self.to.z[0]) - len(self.scene.case.cue) - 1)
            own = self.own[layer][:, own_step]
            # Only its spread inside the question counts.
            own = torch.nn.functional.pad(own, (0, step))[:, : len(alignment.of_base)]
            self.known[layer, step] = alignment.rows(theirs, own)
        return self.known[layer, step]

    def edits(self, group: Sequence[Head], length: int) -> list[AnyEdit]:
        """For a branch that begins at the query before the first chain token."""
        made: list[AnyEdit] = []
        keys = len(self.question) + length + len(self.scene.case.cue)
        for layer, head in dict.fromkeys(group):
            for step in sorted(self.wanted):
                if step > length:  # the query before a token that was not written
                    continue
                at = slice(step, step + 1)
                if self.pattern:
                    row = self.row(layer, step)[head]
                    row = torch.nn.functional.pad(row, (0, keys - len(row)))
                    made.append(PatternEdit(layer, head, at, row[None]))
                else:
                    made.append(Edit(layer, head, at, self.out_of.z[layer][step, head][None]))
        return made

    def write(self, groups: Sequence[Sequence[Head]]) -> list[list[int]]:
        """The chain that each group's run writes, without what closes it."""
        network = self.model.bridge.original_model
        tokenizer: Any = self.model.tokenizer
        ends = end_tokens(network, tokenizer)
        settings = {"max_new_tokens": self.scene.room}
        rows = [self.question] * len(groups)
        with self.model.bridge.hooks(fwd_hooks=_Patching(self, groups).hooks):
            written = list(generated(network, rows, ends, len(groups), lambda _: settings))
        return [_until(row, self.scene.closing, ends) for row in written]


class _Patching:
    """Hooks that patch each row of a batch in its own heads, token by token."""

    def __init__(self, gifts: _Gifts, groups: Sequence[Sequence[Head]]) -> None:
        self.gifts = gifts
        info = gifts.model.info
        self.masks = torch.zeros(info.n_layers, len(groups), info.n_heads, dtype=torch.bool)
        for row, group in enumerate(groups):
            for layer, head in group:
                self.masks[layer, row, head] = True
        self.steps = dict.fromkeys(range(info.n_layers), -1)

    @property
    def hooks(self) -> list[Hook]:
        """Of every layer with a head to patch."""
        name = "hook_pattern" if self.gifts.pattern else "hook_z"
        function = self.pattern if self.gifts.pattern else self.z
        return [
            (f"blocks.{layer}.attn.{name}", partial(function, layer))
            for layer in range(len(self.masks))
            if self.masks[layer].any()
        ]

    def _step(self, layer: int) -> int:
        """Number of the chain token that the last query is before."""
        self.steps[layer] += 1
        return self.steps[layer]

    def z(self, layer: int, value: Tensor, hook: Any) -> Tensor | None:
        step = self._step(layer)
        if step not in self.gifts.wanted:
            return None
        given = self.gifts.out_of.z[layer][step].to(value)
        mask = self.masks[layer].to(value.device)[..., None]
        value = value.clone()
        value[:, -1] = torch.where(mask, given, value[:, -1])
        return value

    def pattern(self, layer: int, value: Tensor, hook: Any) -> Tensor | None:
        step = self._step(layer)
        if step not in self.gifts.wanted:
            return None
        given = self.gifts.row(layer, step).to(value)
        mask = self.masks[layer].to(value.device)[..., None]
        value = value.clone()
        value[:, :, -1] = torch.where(mask, given, value[:, :, -1])
        return value


def _until(row: Sequence[int], closing: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens before those that close the chain or end the text."""
    for at in range(len(row)):
        if row[at] in ends or list(row[at : at + len(closing)]) == list(closing):
            return list(row[:at])
    return list(row)
