"""Focus and Confusion along a chain of thought: what would the model answer if it stopped here.

Step 0 is the direct question, without a chain and without the cue that opens one. After each step
the answer is asked for on a branch, all of them in one forward (Lanham et al. 2023 cut chains of
thought short in the same way, to see whether answers depend on them). Steps can be counted from the
start of the chain, or from the step that is about the decision's own mention: offset 0 is its
coarse step, 1 its fine step, -1 what stands before them, be it an earlier mention's fine step or no
chain at all. Direct answers that are right leave Confusion little to lose, see `turning_points`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import Roles, focus_confusion, widen
from workbench.analysis.statistics import Interval, bootstrap, mean_statistic
from workbench.errors import InputError, require
from workbench.models.answers import early_answers
from workbench.models.branches import Branch
from workbench.models.forked import forked_forward
from workbench.models.hooked import HookedModel
from workbench.prompts.chain import ChainCase

ALIGNMENTS = ("step", "offset")
READOUTS = ("focus", "confusion")
FOCUS_SHARE = 0.9
CONFUSION_SHARE = 0.5
LOWEST_CONFUSION = 0.02
"""A mean Confusion below this at the start has too little to lose."""


@torch.no_grad()
def early_option_logits(
    model: HookedModel, case: ChainCase, *, quick: bool = True
) -> Float[Tensor, "step option"]:
    """Log-odds of the options when the answer is asked for after each step of the clean chain.

    Logits where every option is one token, otherwise exact log-probabilities of the options' texts;
    `quick=False` asks for the latter in any case. Either has the same softmax. The first row is
    step 0. One forward of the question with its chain, and a branch per step (and option).

    Raises:
        InputError: tokens that the model cannot run.
    """
    chain, options = case.clean, case.option_tokens()
    prefix = chain.up_to(chain.n_steps)
    ends = [len(chain.question) + chain.kept(step) for step in range(chain.n_steps + 1)]
    if quick and all(len(option) == 1 for option in options):
        return early_answers(model, prefix, ends, case.cue, [option[0] for option in options])
    # A token is predicted by the one before it: without a cue, that is the last one kept.
    asked = [(end, list(case.cue)) if case.cue else (end - 1, [prefix[end - 1]]) for end in ends]
    longer = list(dict.fromkeys(option[:-1] for option in options))
    branches = [Branch(start, [*cue, *more]) for start, cue in asked for more in longer]
    logits = iter(forked_forward(model, prefix, branches))
    rows = []
    for _, cue in asked:
        after = {more: next(logits)[len(cue) - 1 :].float().log_softmax(-1) for more in longer}
        row = []
        for option in options:
            tokens = torch.tensor(option, device=after[option[:-1]].device)
            row.append(after[option[:-1]].gather(1, tokens[:, None]).sum())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def chain_values(
    model: HookedModel, cases: Sequence[ChainCase], *, source: str = "given"
) -> pd.DataFrame:
    """Focus and Confusion of every decision after every step of its chain.

    One row per case and step. Columns: model, source (where the chains are from: "given",
    "generated" or any word), id, event, step (0: no chain), n_steps, share (step / n_steps),
    offset (step minus the number of the decision's own coarse step; missing where no step is
    labelled so), label ("direct" at step 0, else the step's stage), focus, confusion, p_gold.

    Raises:
        InputError: no cases, or tokens that the model cannot run.
    """
    if not cases:
        raise InputError("no chains to follow: give at least one case")
    frames = []
    for case in cases:
        logits = widen(early_option_logits(model, case)).cpu().double()
        focus, confusion = focus_confusion(logits, Roles.of(case.event))
        chain, own = case.clean, case.clean.own_step
        steps = np.arange(chain.n_steps + 1)
        offsets = [pd.NA if own is None else step - own for step in steps]
        frames.append(
            pd.DataFrame(
                {
                    "model": model.info.name,
                    "source": source,
                    "id": case.event.id,
                    "event": case.event.event,
                    "step": steps,
                    "n_steps": chain.n_steps,
                    "share": steps / max(chain.n_steps, 1),
                    "offset": pd.array(offsets, dtype="Int64"),
                    "label": ["direct", *chain.stages],
                    "focus": focus.numpy(),
                    "confusion": confusion.numpy(),
                    "p_gold": (focus * (1 - confusion)).numpy(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def chain_trajectory(
    values: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Means of `chain_values` along the chain with 95 % intervals over prompts.

    Columns: kind ("chain"), model, source, align, step, share, label, focus, focus_low, focus_high,
    confusion, confusion_low, confusion_high, n. With align "step", steps count from the start of
    the chain; with "offset", `step` is the offset from the decision's own coarse step, and chains
    without one are left out. n events have a chain that goes as far; share is their mean. label is
    the step's stage where all of these events agree, else "mixed".

    Raises:
        InputError: columns missing, or no row.
    """
    _check(values)
    rows = []
    for (model, source), part in groups(values, ["model", "source"]):
        for align in ALIGNMENTS:
            for step, here in part.dropna(subset=[align]).groupby(align, sort=True):
                interval = means(here, n_resamples, seed)
                labels = here["label"].unique()
                row = {
                    "kind": "chain",
                    "model": model,
                    "source": source,
                    "align": align,
                    "step": step,
                    "share": here["share"].mean(),
                    "label": labels[0] if len(labels) == 1 else "mixed",
                }
                rows.append(row | readout_columns(interval) | {"n": len(here)})
    return pd.DataFrame(rows).astype({"step": int})


def groups(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Rows with the same keys, in order of first appearance."""
    for key, part in table.groupby(keys, sort=False):
        assert isinstance(key, tuple)
        yield key, part


def means(here: pd.DataFrame, n_resamples: int, seed: int) -> Interval:
    """Mean Focus and Confusion of some rows, resampling prompts."""
    return bootstrap(
        mean_statistic,
        torch.tensor(here[list(READOUTS)].to_numpy(float)),
        prompt_ids=[str(name) for name in here["id"]],
        n_resamples=n_resamples,
        seed=seed,
        labels=["trajectory"],
    )


def readout_columns(interval: Interval) -> dict[str, float]:
    """Both readouts with the ends of their intervals, as a table has them."""
    columns = {}
    for index, name in enumerate(READOUTS):
        columns[name], columns[f"{name}_low"], columns[f"{name}_high"] = (
            float(end[index]) for end in interval
        )
    return columns


def turning_points(
    values: pd.DataFrame, *, axis: str = "share", n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Where along the chain mean Focus is nearly there, and mean Confusion mostly gone.

    One row per model, source and what: "focus" (the first place where mean Focus is at least 90 %
    of its last value), "confusion" (the first where mean Confusion is at most half of its first
    value) and "focus_minus_confusion" (their difference on the same resamples of prompts: below 0,
    Focus comes first).

    Places are shares of the chain, where each event keeps its last step's values until the next
    (`axis="share"`); or offsets from the decision's own coarse step, those that all events have
    (`axis="offset"`).

    Columns: model, source, axis, what, at, low, high, start, final (the mean at the first and last
    place), defined (share of the resamples in which the place exists; intervals are over these, and
    missing where `at` is), n (events), note (why `at` is missing, or what to mind). A Focus that is
    there at the first place has no turning point in the chain: `at` is then that place, and the
    note says so. Where mean Confusion is below 0.02 at the start, or never halves, `at` is missing.

    Raises:
        InputError: columns missing, another axis, or no place that all events share.
    """
    _check(values)
    if axis not in ("share", "offset"):
        raise InputError(f"axis is {axis!r}, must be 'share' or 'offset'")
    rows = []
    for (model, source), part in groups(values, ["model", "source"]):
        places, curves, ids = _curves(part, axis)
        shown = {"model": model, "source": source, "axis": axis}
        for what, found in _turns(places, curves, ids, n_resamples, seed).items():
            rows.append(shown | {"what": what} | found | {"n": len(ids)})
    columns = ["model", "source", "axis", "what", "at", "low", "high", "start", "final", "defined"]
    return pd.DataFrame(rows, columns=[*columns, "n", "note"])


def _curves(
    part: pd.DataFrame, axis: str
) -> tuple[Float[Tensor, " place"], Float[Tensor, "event readout place"], list[str]]:
    """Every event's values at the same places."""
    part = part.dropna(subset=[axis])
    events = [frame for _, frame in part.groupby(["id", "event"], sort=False)]
    if not events:
        raise InputError(f"no chain has a place on the axis {axis!r}")
    sets = [set(frame[axis]) for frame in events]
    common = set.union(*sets) if axis == "share" else set.intersection(*sets)
    if not common:
        raise InputError("the chains have no step in common, counted from their own coarse step")
    places = np.array(sorted(float(place) for place in common))
    curves = []
    for frame in events:
        frame = frame.sort_values(axis)
        reached = np.searchsorted(frame[axis].to_numpy(float), places, side="right") - 1
        curves.append(frame[list(READOUTS)].to_numpy(float)[reached].T)
    ids = [str(frame["id"].iloc[0]) for frame in events]
    return torch.from_numpy(places), torch.from_numpy(np.stack(curves)), ids


def _turns(
    places: Float[Tensor, " place"],
    curves: Float[Tensor, "event readout place"],
    ids: Sequence[str],
    n_resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    def focus_turn(mean: Float[Tensor, "resample readout place"]) -> Tensor:
        focus = mean[:, 0]
        return _first(focus >= FOCUS_SHARE * focus[:, -1:], places)

    def confusion_turn(mean: Float[Tensor, "resample readout place"]) -> Tensor:
        confusion = mean[:, 1]
        first = _first(confusion <= CONFUSION_SHARE * confusion[:, :1], places)
        return first.where(confusion[:, 0] >= LOWEST_CONFUSION, torch.nan)

    def difference(mean: Float[Tensor, "resample readout place"]) -> Tensor:
        return focus_turn(mean) - confusion_turn(mean)

    mean = curves.mean(dim=0)
    ends = {"focus": mean[0, [0, -1]].tolist(), "confusion": mean[1, [0, -1]].tolist()}
    found = {}
    statistics = {
        "focus": focus_turn,
        "confusion": confusion_turn,
        "focus_minus_confusion": difference,
    }
    for what, statistic in statistics.items():
        draws: list[Tensor] = []

        def kept(mean: Tensor, statistic: Any = statistic, draws: list[Tensor] = draws) -> Tensor:
            draws.append(statistic(mean[:, 0]))
            return draws[-1][:, None]

        # A cell of its own for the whole curve, since the first axis of cells may be sliced.
        interval = bootstrap(
            kept,
            curves[:, None],
            prompt_ids=ids,
            n_resamples=n_resamples,
            seed=seed,
            labels=["turning points"],
            studentised=False,  # places jump
        )
        at, low, high = (float(end) for end in interval)
        if np.isnan(at):
            low = high = np.nan  # the few resamples that have a place say nothing of the mean
        start, final = ends.get(what, (np.nan, np.nan))
        defined = float((~draws[0][1:].isnan()).double().mean())
        note = _note(what, at, float(places[0]), start)
        found[what] = {"at": at, "low": low, "high": high, "start": start, "final": final}
        found[what] |= {"defined": defined, "note": note}
    return found


def _first(reached: Tensor, places: Float[Tensor, " place"]) -> Float[Tensor, " resample"]:
    """The first place where something holds; NaN where it never does."""
    first = places[reached.int().argmax(dim=-1)]
    return first.where(reached.any(dim=-1), torch.nan)


def _note(what: str, at: float, first: float, start: float) -> str:
    if what == "focus":
        return "there from the first place on" if at == first else ""
    if what == "confusion" and np.isnan(at):
        low = start < LOWEST_CONFUSION
        return "too low at the start to halve" if low else "never down to half of its start"
    return "one of the two is undefined" if np.isnan(at) else ""


def _check(values: pd.DataFrame) -> None:
    wanted = ["model", "source", "id", "event", "step", "share", "offset", "label", *READOUTS]
    require(values, "chain values", wanted)
    if values.empty:
        raise InputError("the table of chain values is empty")
