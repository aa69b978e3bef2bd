"""Per-event results of patching heads between a prompt and its counterfactuals.

One event gives five patched runs per head (or set of heads) and choice of positions: its `hook_z`
is replaced in one variant by the value from another, or its attention rows are (`transplants`), at
the decision token or over the whole aligned suffix. One plain run of each variant, kept in an
`EventCache`, gives the values and is the prefix that the patched forwards of `patch_heads` branch
from, many heads at a time. Results are frames of one row per set of heads × positions × run, so a
long sweep can be saved event by event and taken up again.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.transplants import (
    PlainRun,
    base_run,
    check_intervention,
    patched_logits,
)
from workbench.analysis.readout import (
    Roles,
    likeliest_near,
    option_mass,
    readout_columns,
    readouts,
    select_options,
)
from workbench.analysis.statistics import Halves
from workbench.analysis.variant_runs import variant_runs
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.forked import patch_heads
from workbench.models.hooked import HookedModel
from workbench.models.prefix import Prefix
from workbench.phases import PHASES, READOUT_COLUMNS, RUNS
from workbench.processes import Spread, in_order
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet, Variant

POSITIONS = ("decision", "span")


RunsOf = Callable[[DecisionEvent], Collection[str]]
"""Which patched runs an event is wanted for."""


def every_run(event: DecisionEvent) -> Collection[str]:
    """All of them, whatever the event."""
    return tuple(RUNS)


EVENT_COLUMNS = ["layer", "head", "positions", "run", "id", "event", "half"]
EVENT_COLUMNS += [*READOUT_COLUMNS, "group", "intervention"]
"""Columns of the `patching_events` table."""

THRESHOLDS = {"clean_focus": 0.5, "clean_confusion": 0.5, "moved": 0.2}
"""When an event is a valid pair: least clean Focus, most clean Confusion, least change."""


@dataclass(frozen=True)
class EventCache:
    """One plain run of each variant of an event.

    `z` is every head's output over the aligned suffix; `bases` is what a patched forward starts
    from, a prefix where the model can fork and the bare tokens where not. `near_label` indexes the
    option that the near variant asks for, see `likeliest_near`.
    """

    z: dict[Variant, Float[Tensor, "layer position head d_head"]]
    bases: dict[Variant, Prefix | list[int]]
    near_label: int
    plain: dict[Variant, PlainRun] = field(default_factory=dict)
    """The same for patched attention, filled as it is wanted."""

    @classmethod
    def of(
        cls, model: HookedModel, event: DecisionEvent, positions: Collection[str] = POSITIONS
    ) -> "EventCache":
        """Run the three variants once; only the decision token is kept if that is all."""
        kept = event.aligned_suffix if "span" in positions else 1
        near_label = -1
        z: dict[Variant, Tensor] = {}
        bases: dict[Variant, Prefix | list[int]] = {}
        for variant in VARIANTS:
            bases[variant], layers, logits = base_run(model, list(event.variant(variant)), kept)
            if variant == "near":
                near_label = likeliest_near(select_options(logits, event), Roles.of(event))
            z[variant] = torch.stack([layer.to(layers[0].device) for layer in layers])
        return cls(z, bases, near_label)

    def patched(
        self,
        model: HookedModel,
        event: DecisionEvent,
        run: tuple[Variant, Variant],
        positions: str,
        groups: Sequence[Sequence[Head]],
        *,
        intervention: str = "z",
    ) -> Float[Tensor, "group option"]:
        """Option logits of the first variant of `run`, each group patched from the second."""
        base, source = run
        columns = event.option_tokens
        if intervention == "z":
            values = self.source(source, positions)
            return patch_heads(model, self.bases[base], values, groups, tokens=columns)
        to, out_of = (self._plain(model, event, name) for name in run)
        n = self.source(source, positions).shape[1]
        pairs = [(len(to.tokens) - back, len(out_of.tokens) - back) for back in range(n, 0, -1)]
        return patched_logits(to, out_of, pairs, groups, intervention=intervention, columns=columns)

    def _plain(self, model: HookedModel, event: DecisionEvent, name: Variant) -> PlainRun:
        """The variant with its attention rows, which are made once."""
        if name not in self.plain:
            tokens = list(event.variant(name))
            self.plain[name] = PlainRun(model, tokens, self.bases[name], self.z[name].unbind())
        return self.plain[name]

    def source(
        self, variant: Variant, positions: str
    ) -> Float[Tensor, "layer position head d_head"]:
        """Values to patch in: over the last token, or over the whole aligned suffix."""
        return self.z[variant][:, -1:] if positions == "decision" else self.z[variant]


def baseline(
    model: HookedModel,
    prompts: PromptSet,
    halves: Halves,
    progress: Callable[[int, int], None] | None = None,
    *,
    spread: Spread = in_order,
) -> pd.DataFrame:
    """Focus and Confusion of every variant, unpatched, and whether the event is a valid pair.

    One row per event and variant. An event is a valid pair when the model does the task on it
    (clean Focus at least 0.5, clean Confusion at most 0.5) and the counterfactual moved it:
    `counts_far` when Focus fell by at least 0.2, `counts_near` when Confusion rose by at least 0.2.
    Roles are those of the clean prompt in every variant: Focus of the far one is the mass left on
    gold's cluster. Beside both stand their margins, and `swap` with its own (see `readouts`).
    `option_mass` is the probability of all options together, over the vocabulary.
    `progress` is called with (events done, events); several processes `spread` them.

    Raises:
        InputError: naming the event that the model cannot run, or runs to logits that are no
            numbers.
    """

    def rows_of(events: Sequence[DecisionEvent]) -> Iterator[list[dict[str, object]]]:
        for event, runs in zip(events, variant_runs(model, events), strict=True):
            option_logits = torch.stack([select_options(run.logits, event) for run in runs])
            roles = Roles.of(event)
            near_label = likeliest_near(option_logits[VARIANTS.index("near")], roles)
            found = readouts(option_logits, roles, near_label)
            columns = {"id": event.id, "event": event.event, "half": halves.of(event.id)}
            masses = [{"option_mass": float(option_mass(run.logits, event))} for run in runs]
            each = zip(baseline_rows(**found), masses, strict=True)
            yield [columns | row | mass for row, mass in each]

    return pd.DataFrame([row for rows in spread(rows_of, prompts.events, progress) for row in rows])


def baseline_rows(
    focus: Float[Tensor, " variant"],
    confusion: Float[Tensor, " variant"],
    **more: Float[Tensor, " variant"],
) -> list[dict[str, object]]:
    """One event's baseline columns per variant, in the order of `VARIANTS`; `more` as they are."""
    clean = VARIANTS.index("clean")
    does_task = bool(
        focus[clean] >= THRESHOLDS["clean_focus"]
        and confusion[clean] <= THRESHOLDS["clean_confusion"]
    )
    counts = {}
    for phase, readout in zip(PHASES.values(), (focus, confusion), strict=True):
        other = VARIANTS.index(phase.counterfactual)
        lost = readout[clean] - readout[other] if phase.rises else readout[other] - readout[clean]
        counts[phase.valid] = does_task and bool(lost >= THRESHOLDS["moved"])
    values = zip(VARIANTS, focus.tolist(), confusion.tolist(), strict=True)
    rows = [
        {"variant": variant, "focus": f, "confusion": c, "p_gold": f * (1 - c), **counts}
        for variant, f, c in values
    ]
    others = {name: value.tolist() for name, value in more.items()}
    return [row | {name: one[at] for name, one in others.items()} for at, row in enumerate(rows)]


def sweep_event(
    model: HookedModel,
    event: DecisionEvent,
    groups: Sequence[Sequence[Head]],
    positions: Sequence[str] = POSITIONS,
    *,
    runs: Collection[str] = tuple(RUNS),
    cache: EventCache | None = None,
    intervention: str = "z",
) -> pd.DataFrame:
    """The patched runs of one event for every group of heads, each patched as one.

    Columns: target (index into `groups`), positions, run, id, event, and `READOUT_COLUMNS`. `runs`
    are the names of those wanted, all unless given. Without `cache` the three variants are run
    first. `intervention` says what of a head is patched, see `transplants`.

    Raises:
        InputError: positions other than "decision" and "span", no run or an unknown one, an unknown
            intervention, or a head the model lacks.
    """
    _check(model, groups, positions, runs)
    check_intervention(intervention)
    cache = cache or EventCache.of(model, event, positions)
    roles = Roles.of(event)
    frames = []
    for where in positions:
        for run, (base, source) in RUNS.items():
            if run not in runs:
                continue
            option_logits = cache.patched(
                model, event, (base, source), where, groups, intervention=intervention
            )
            frames.append(
                pd.DataFrame({"target": range(len(groups)), "positions": where, "run": run}).assign(
                    id=event.id,
                    event=event.event,
                    **readout_columns(option_logits, roles, cache.near_label),
                )
            )
    return pd.concat(frames, ignore_index=True)


def _check(
    model: HookedModel,
    groups: Sequence[Sequence[Head]],
    positions: Sequence[str],
    runs: Collection[str],
) -> None:
    if not groups or not all(groups):
        raise InputError("nothing to patch: give at least one head, and no empty set of heads")
    for group in groups:
        for layer, head in group:
            model.check_head(layer, head)
    check_positions(positions)
    if not runs or not set(runs) <= set(RUNS):
        raise InputError(f"runs {list(runs)} must be among {', '.join(RUNS)}")


def check_positions(positions: Sequence[str]) -> None:
    """Refuse positions other than "decision" and "span", or none, with an `InputError`."""
    if not positions or not set(positions) <= set(POSITIONS):
        raise InputError(f"positions {list(positions)} must be among {', '.join(POSITIONS)}")


def sweep(
    model: HookedModel,
    prompts: PromptSet,
    heads: Sequence[Head],
    positions: Sequence[str] = POSITIONS,
    *,
    halves: Halves,
    group: str | Sequence[str] = "all",
    runs_of: RunsOf = every_run,
    intervention: str = "z",
) -> Iterator[pd.DataFrame]:
    """Patch heads one by one on every event; one `patching_events` frame per event, as it is done.

    `group` says why a head was patched, once for all or one word per head; `runs_of` names the runs
    that an event is wanted for, and `intervention` what of a head is patched.
    """
    labels = [group] * len(heads) if isinstance(group, str) else list(group)
    names = pd.DataFrame(heads, columns=["layer", "head"]).assign(group=labels)
    groups = [[head] for head in heads]
    for event in prompts:
        frame = sweep_event(
            model, event, groups, positions, runs=runs_of(event), intervention=intervention
        )
        frame = frame.join(names, on="target").assign(half=halves.of(event.id))
        frame = frame.assign(intervention=intervention)
        yield frame.reindex(columns=EVENT_COLUMNS)


def joint_effects(
    model: HookedModel,
    prompts: PromptSet,
    baseline: pd.DataFrame,
    groups: Sequence[Sequence[Head]],
    positions: Sequence[str] = POSITIONS,
    *,
    halves: Sequence[str] = ("verify",),
    n_resamples: int = 2000,
    seed: int = 0,
    runs_of: RunsOf = every_run,
    kept: MutableMapping[Any, pd.DataFrame] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Causal effects of sets of heads, all heads of a set patched together.

    Only events of the named halves are run. `kept` takes each event's rows, by its number among
    these, and those that it holds are not made again. Columns: target (index into `groups`),
    positions, measure, half, effect, low, high, n, n_excluded.
    """
    half_of = baseline.drop_duplicates(["id", "event"]).set_index(["id", "event"])["half"]
    wanted = [
        event
        for event in prompts
        if "all" in halves or half_of.loc[(event.id, event.event)] in halves
    ]
    frames: MutableMapping[Any, pd.DataFrame] = {} if kept is None else kept
    for number, event in enumerate(wanted):
        if number not in frames:
            frames[number] = sweep_event(model, event, groups, positions, runs=runs_of(event))
        if progress is not None:
            progress(number + 1, len(wanted))
    if not wanted:
        raise InputError(f"no event lies in half {' or '.join(halves)}")
    return causal_effects(
        pd.concat([frames[number] for number in range(len(wanted))], ignore_index=True),
        baseline,
        by=("target",),
        halves=halves,
        n_resamples=n_resamples,
        seed=seed,
    )


def event_counts(
    baseline: pd.DataFrame, thresholds: Mapping[str, float] = THRESHOLDS
) -> list[dict[str, Any]]:
    """Per counterfactual: valid pairs, and how many events are none for each of two reasons.

    The model fails the event on the clean prompt, or else the counterfactual moved it too little.
    """
    clean = baseline.loc[baseline["variant"] == "clean"]
    fails = (clean["focus"] < thresholds["clean_focus"]) | (
        clean["confusion"] > thresholds["clean_confusion"]
    )
    left_out = {p.counterfactual: ~clean[p.valid].astype(bool) for p in PHASES.values()}
    return [
        {
            "variant": variant,
            "events": len(clean),
            "counted": int((~out).sum()),
            "failed": int((out & fails).sum()),
            "unmoved": int((out & ~fails).sum()),
        }
        for variant, out in left_out.items()
    ]
