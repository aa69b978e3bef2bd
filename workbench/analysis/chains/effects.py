"""Which heads act at which step of a chain of thought: causal effects after each stage of it.

The four patched runs are those of `patching` (far with clean, clean with far, near with clean,
clean with near). Here every variant goes on with its own chain, cut after the same stage, and the
cue that asks for the answer. A clean chain names the right letters, so a far or near prompt with
the clean chain would be answered by the chain; hence each variant keeps the chain that belongs to
it, given or written by the model.

Chains of two variants differ, so their tokens have no counterparts and are not patched. The `span`
is what the variants share: the aligned end of the question (the options), and the cue. Heads that
act by reading the options show there, up to the stage where the chain has said what they found;
from then on heads that read the chain at the cue do. Where two variants have the same chain so far
(before the decision's own coarse step, and for near up to its fine step), its tokens align too and
belong to the span. `decision` is the last token.

Stages, relative to the decision's own mention:
    direct    no chain: the effects of `patching`
    before    after the steps of earlier mentions, where there are any
    writing   inside its coarse step, just before the first option that this names: the chain's own
              decision. Options are named in order of the prompt's letters, so only Focus means
              something there, and an event is a valid pair by its Focus alone
    coarse    after its coarse step
    fine      after its fine step
    end       after the whole chain
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.patching import POSITIONS, baseline_rows, check_positions
from workbench.analysis.patching.transplants import base_run
from workbench.analysis.readout import Roles, likeliest_near, readout_columns, readouts, widen
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.branches import Branch, Edit
from workbench.models.forked import forked_forward
from workbench.models.hooked import HookedModel
from workbench.models.prefix import Prefix
from workbench.phases import RUNS
from workbench.processes import Spread, in_order
from workbench.progress import Advance
from workbench.prompts.chain import Chain, ChainCase
from workbench.prompts.prompt import VARIANTS, Variant

CHAIN_STAGES = ("direct", "before", "writing", "coarse", "fine", "end")


@dataclass(frozen=True)
class _Ran:
    """A variant's question, chain so far and cue, run once; the aligned part is its tail.

    The tail begins where the variants' questions begin to agree; `z` covers it.
    """

    base: Prefix | list[int]
    chain: tuple[int, ...]
    tail: tuple[int, ...]
    z: list[Float[Tensor, "tail head d_head"]]
    logits: Float[Tensor, " option"]


def chain_effects(
    model: HookedModel,
    cases: Sequence[ChainCase],
    pools: Mapping[str, Sequence[Head]],
    *,
    stages: Sequence[str] = CHAIN_STAGES,
    positions: Sequence[str] = POSITIONS,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: Advance | None = None,
    spread: Spread = in_order,
) -> pd.DataFrame:
    """Causal effects of pooled heads after each stage of the chain, with intervals over prompts.

    Args:
        model: runs the chains.
        cases: with chains for all three variants; their events say which prompt they are of.
        pools: name of a pool → its heads.
        stages: which of `CHAIN_STAGES`. A case counts at a stage that all its chains have.
        positions: "decision", "span" or both; see the module's text.
        n_resamples: of the bootstrap over prompts.
        seed: of the bootstrap.
        progress: called with cases done and all cases.
        spread: how several processes share the cases.

    Returns:
        Columns: stage, step (place of the stage in `CHAIN_STAGES`), pool, layer, head (both missing
        for the pool as a whole), positions, measure (see `effects`), effect, low, high, n,
        n_excluded (events at this stage that are no valid pairs). Measures without a valid pair
        are left out.

    Raises:
        InputError: no case or no head, unknown stages or positions, a case without the three
            chains or whose questions and cue are not its event's prompts.
    """
    groups = _groups(model, pools)
    _check(cases, stages, positions)
    events: dict[str, list[pd.DataFrame]] = {stage: [] for stage in stages}
    baselines: dict[str, list[dict[str, object]]] = {stage: [] for stage in stages}
    heads = [heads for *_, heads in groups]

    def patched(some: Sequence[ChainCase]) -> Iterator[dict[str, tuple[Any, Any]]]:
        for case in some:
            found = {}
            for stage in stages:
                ran = _run(model, case, stage)
                if ran is not None:
                    frames = _patched(model, case, stage, ran, heads, positions)
                    found[stage] = frames, _baseline(case, stage, ran)
            yield found

    for found in spread(patched, cases, progress):
        for stage, (frames, rows) in found.items():
            events[stage] += frames
            baselines[stage] += rows
    tables = []
    for stage in (stage for stage in CHAIN_STAGES if events.get(stage)):
        table = causal_effects(
            pd.concat(events[stage], ignore_index=True),
            pd.DataFrame(baselines[stage]),
            by=("target",),
            halves=("all",),
            n_resamples=n_resamples,
            seed=seed,
        )
        tables.append(table.assign(stage=stage, step=CHAIN_STAGES.index(stage)))
    if not tables:
        raise InputError("no case has any of the stages " + ", ".join(stages))
    table = pd.concat(tables, ignore_index=True)
    names = pd.DataFrame([group[:3] for group in groups], columns=["pool", "layer", "head"]).astype(
        {"layer": "Int64", "head": "Int64"}
    )
    columns = ["stage", "step", *names, "positions", "measure", "effect", "low", "high", "n"]
    table = table[table["n"] > 0].join(names, on="target")
    return table.reindex(columns=[*columns, "n_excluded"]).reset_index(drop=True)


def _groups(
    model: HookedModel, pools: Mapping[str, Sequence[Head]]
) -> list[tuple[str, int | None, int | None, list[Head]]]:
    """Every head alone, then each pool as a whole: (pool, layer, head, heads)."""
    found: list[tuple[str, int | None, int | None, list[Head]]] = []
    for pool, heads in pools.items():
        for layer, head in heads:
            model.check_head(layer, head)
            found.append((pool, layer, head, [(layer, head)]))
    found += [(pool, None, None, list(heads)) for pool, heads in pools.items() if heads]
    if not found:
        raise InputError("no heads to patch: the pools are empty")
    return found


def _check(cases: Sequence[ChainCase], stages: Sequence[str], positions: Sequence[str]) -> None:
    if not cases:
        raise InputError("no chains to patch: give at least one case")
    if not stages or not set(stages) <= set(CHAIN_STAGES):
        raise InputError(f"stages {list(stages)} must be among {', '.join(CHAIN_STAGES)}")
    check_positions(positions)
    for case in cases:
        where = f"prompt {case.event.id!r} event {case.event.event}"
        for name in VARIANTS:
            if name not in case.chains:
                raise InputError(f"{where}: has no chain for the {name} prompt")
            if (*case.chains[name].question, *case.cue) != case.event.variant(name):
                raise InputError(f"{where}: question and cue are not its {name} prompt")
        if any(len(option) != 1 for option in case.option_tokens()):
            raise InputError(f"{where}: options of several tokens cannot be patched for")
        if case.event.aligned_suffix <= len(case.cue):
            raise InputError(f"{where}: the variants' questions share no end to patch")


def kept_at(chain: Chain, stage: str, options: Sequence[int]) -> int | None:
    """How many tokens of a chain are there at a stage; None where the chain has no such stage."""
    own = chain.own_step
    if stage == "direct":
        return 0
    if own is None:
        return None
    if stage == "before":
        return chain.kept(own - 1) if own > 1 else None
    if stage == "writing":
        return next((at for at in chain.places(own) if chain.tokens[at] in options), None)
    if stage == "coarse":
        return chain.kept(own)
    if stage == "fine":
        return chain.kept(chain.stages.index("fine") + 1) if "fine" in chain.stages else None
    return chain.kept(chain.n_steps)


def _run(model: HookedModel, case: ChainCase, stage: str) -> dict[Variant, _Ran] | None:
    """Each variant once at a stage; None where one of them has no such stage."""
    options = [option[0] for option in case.option_tokens()]
    shared = case.event.aligned_suffix - len(case.cue)
    cue = () if stage == "writing" else case.cue
    ran: dict[Variant, _Ran] = {}
    for name in VARIANTS:
        chain = case.chains[name]
        kept = kept_at(chain, stage, options)
        if kept is None:
            return None
        written = chain.tokens[:kept]
        tail = (*chain.question[len(chain.question) - shared :], *written, *cue)
        tokens = [*chain.question, *written, *cue]
        base, z, logits = base_run(model, tokens, len(tail))
        ran[name] = _Ran(base, written, tail, z, widen(logits[options]).cpu())
    return ran


def _baseline(case: ChainCase, stage: str, ran: Mapping[Variant, _Ran]) -> list[dict[str, object]]:
    logits = torch.stack([ran[name].logits for name in VARIANTS]).double()
    roles = Roles.of(case.event)
    found = readouts(logits, roles, likeliest_near(logits[VARIANTS.index("near")], roles))
    if stage == "writing":
        # Letters in order: counts by Focus alone.
        found["confusion"] = torch.zeros_like(found["confusion"])
    columns = {"id": case.event.id, "event": case.event.event, "half": "all"}
    return [columns | row for row in baseline_rows(**found)]


def _patched(
    model: HookedModel,
    case: ChainCase,
    stage: str,
    ran: Mapping[Variant, _Ran],
    groups: Sequence[Sequence[Head]],
    positions: Sequence[str],
) -> list[pd.DataFrame]:
    """Focus and Confusion of every group of heads × positions × run, as `sweep_event` has them."""
    options = [option[0] for option in case.option_tokens()]
    n_cue = 0 if stage == "writing" else len(case.cue)
    shared = case.event.aligned_suffix - len(case.cue)
    roles = Roles.of(case.event)
    near_label = likeliest_near(ran["near"].logits, roles)
    frames = []
    for where in positions:
        for run, (base, source) in RUNS.items():
            to, out_of = ran[base], ran[source]
            pairs = _pairs(to, out_of, where, shared, n_cue)
            length = len(to.base.tokens if isinstance(to.base, Prefix) else to.base)
            repeated = to.tail[-1:] if where == "decision" else to.tail
            branches = [
                Branch(
                    length - len(repeated),
                    repeated,
                    [
                        Edit(layer, head, into, out_of.z[layer][taken, head])
                        for layer, head in dict.fromkeys(heads)
                        for into, taken in pairs
                    ],
                )
                for heads in groups
            ]
            logits = forked_forward(model, to.base, branches, columns=options, last_only=True)
            columns = readout_columns(torch.cat(logits), roles, near_label)
            frame = pd.DataFrame({"target": range(len(groups)), "positions": where, "run": run})
            frame = frame.assign(id=case.event.id, event=case.event.event)
            frames.append(frame.assign(**columns))
    return frames


def _pairs(
    to: _Ran, out_of: _Ran, where: str, shared: int, n_cue: int
) -> list[tuple[slice, slice]]:
    """Positions in the branch that is patched, and in the tail that the values come from."""
    a, b = len(to.tail), len(out_of.tail)
    if where == "decision":
        return [(slice(0, 1), slice(b - 1, b))]
    if to.chain == out_of.chain:
        return [(slice(0, a), slice(0, b))]
    # Where chains end differently and no cue follows, their last token still is the decision.
    end = max(n_cue, 1)
    return [(slice(0, shared), slice(0, shared)), (slice(a - end, a), slice(b - end, b))]
