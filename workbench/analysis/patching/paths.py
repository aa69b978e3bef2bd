"""Path patching: what one head does to the answer through one other head's query, key or value.

For each event and run of `RUNS`, the receiving head (for keys and values: all query heads of its
group) is patched with what it would put out if it had read the sender's output of the other run;
the sender's output reaches nothing else. Rows and measures are those of head patching (`patching`,
`effects`), with a path in the head's place.

Nothing in between is computed again: MLPs stay as they were, too. The path patching of Wang et al.
(2022, IOI) recomputes them, and its effects differ from these by up to 0.045.
"""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.patching import EventCache, RunsOf, check_positions, every_run
from workbench.analysis.readout import Roles, readout_columns
from workbench.errors import InputError
from workbench.heads import Head, head_name
from workbench.models.branches import Branch, Edit
from workbench.models.forked import forked_forward
from workbench.models.hooked import HookedModel
from workbench.models.path_edges import ROUTES, Received, Route, check_paths, receive
from workbench.models.prefix import Prefix
from workbench.phases import RUNS
from workbench.prompts.prompt import DecisionEvent, PromptSet

PATH_COLUMNS = ["src_layer", "src_head", "dst_layer", "dst_heads", "route"]
"""Columns that name a path; `dst_heads` names what it leads into, "4-6 4-7" where a key or a value
is shared."""


class Path(NamedTuple):
    """An edge from a head into a later one; by key or value, into a KV head."""

    source: Head
    destination: Head
    route: Route


def paths_between(
    model: HookedModel,
    sources: Sequence[Head],
    destinations: Sequence[Head],
    routes: Sequence[Route] = ROUTES,
) -> list[Path]:
    """All paths from sources into later destinations; heads of one KV group share key and value.

    Raises:
        InputError: a head that the model does not have, or no destination above a source.
    """
    for head in (*sources, *destinations):
        model.check_head(*head)
    group = model.info.n_heads // model.info.n_kv_heads
    paths: dict[Path, None] = {}  # ordered, each once
    for source in sources:
        for layer, head in destinations:
            if layer > source[0]:
                for route in routes:
                    into = (layer, head if route == "q" else head // group)
                    paths[Path(source, into, route)] = None
    if not paths:
        raise InputError("no path: every destination lies at or below every source")
    return list(paths)


def receivers(model: HookedModel, path: Path) -> list[Head]:
    """The query heads that a path leads into: one by its query, a KV head's group otherwise."""
    layer, head = path.destination
    group = model.info.n_heads // model.info.n_kv_heads
    heads = [head] if path.route == "q" else range(head * group, (head + 1) * group)
    return [(layer, at) for at in heads]


def path_effects(
    model: HookedModel,
    prompts: PromptSet,
    baseline: pd.DataFrame,
    paths: Sequence[Path],
    positions: Sequence[str] = ("span",),
    *,
    halves: Sequence[str] = ("all",),
    n_resamples: int = 2000,
    seed: int = 0,
    runs_of: RunsOf = every_run,
    kept: MutableMapping[Any, pd.DataFrame] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Causal effects of paths with 95 % intervals over prompts, one row per path and measure.

    `kept` is as for `joint_effects`. Columns: those of `PATH_COLUMNS`, positions, measure, half,
    effect, low, high, n, n_excluded.

    Raises:
        InputError: as `check_paths`; positions that are unknown; no event in the halves.
    """
    kept = {} if kept is None else kept
    for number, event in enumerate(prompts):
        if number not in kept:
            for frame in sweep_paths(model, [event], paths, positions, runs_of):
                kept[number] = frame
        if progress is not None:
            progress(number + 1, len(prompts))
    frames = [kept[number] for number in range(len(prompts)) if number in kept]
    if not frames:
        raise InputError("no event to patch paths on")
    effects = causal_effects(
        pd.concat(frames, ignore_index=True),
        baseline,
        by=("target",),
        halves=halves,
        n_resamples=n_resamples,
        seed=seed,
    )
    rows = [
        (*one.source, one.destination[0], _heads(receivers(model, one)), one.route) for one in paths
    ]
    names = pd.DataFrame(rows, columns=PATH_COLUMNS)
    table = names.join(effects.set_index("target"), how="inner")
    return table.sort_values(["positions", "measure", *PATH_COLUMNS], ignore_index=True)


def _heads(heads: Sequence[Head]) -> str:
    return " ".join(head_name(*at) for at in heads)


def sweep_paths(
    model: HookedModel,
    prompts: PromptSet | Sequence[DecisionEvent],
    paths: Sequence[Path],
    positions: Sequence[str] = ("span",),
    runs_of: RunsOf = every_run,
) -> Iterator[pd.DataFrame]:
    """One frame per event, as `sweep_event` gives it; `target` is an index into `paths`.

    Raises:
        InputError: as `check_paths`, or positions that are unknown.
    """
    check_positions(positions)
    if prompts:
        check_paths(model, max((event.longest for event in prompts), key=len))
    for event in prompts:
        cache, runs = EventCache.of(model, event, positions), runs_of(event)
        frames = [
            _patched(model, event, cache, paths, where, run)
            for where in positions
            for run in RUNS
            if run in runs
        ]
        if frames:
            yield pd.concat(frames, ignore_index=True)


def _patched(
    model: HookedModel,
    event: DecisionEvent,
    cache: EventCache,
    paths: Sequence[Path],
    positions: str,
    run: str,
) -> pd.DataFrame:
    base, other = RUNS[run]
    prefix, source = cache.bases[base], cache.source(other, positions)
    assert isinstance(prefix, Prefix), "a model whose paths can be patched has prefixes"
    senders = list(dict.fromkeys(path.source for path in paths))
    layers = {path.destination[0] for path in paths}
    received = receive(model, prefix, source, senders, layers, {path.route for path in paths})
    start = len(prefix.tokens) - source.shape[1]
    branches = [
        Branch(start, prefix.tokens[start:], _edits(model, path, received, senders))
        for path in paths
    ]
    logits = forked_forward(model, prefix, branches, columns=event.option_tokens, last_only=True)
    option_logits = torch.stack([one[0] for one in logits])
    return pd.DataFrame({"target": range(len(paths)), "positions": positions, "run": run}).assign(
        id=event.id,
        event=event.event,
        **readout_columns(option_logits, Roles.of(event), cache.near_label),
    )


def _edits(
    model: HookedModel, path: Path, received: Received, senders: Sequence[Head]
) -> list[Edit]:
    z: Tensor = received[path.destination[0], path.route][senders.index(path.source)]
    return [Edit(layer, at, slice(None), z[:, at]) for layer, at in receivers(model, path)]
