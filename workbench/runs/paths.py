"""The paths step: through whose query, key or value the pooled heads act on one another."""

from collections.abc import Sequence

import pandas as pd

from workbench.analysis.patching.paths import (
    PATH_COLUMNS,
    Path,
    path_effects,
    paths_between,
    receivers,
)
from workbench.errors import InputError
from workbench.heads import Head, head_name, parse_heads
from workbench.headsets.headset import HeadSet
from workbench.models.path_edges import ROUTES, check_paths
from workbench.phases import valid_pairs
from workbench.prompts.prompt import PromptSet
from workbench.runs.steps import HEADSET, Made
from workbench.runs.subject import Parts, Subject, Tables, runs_worth_patching

COLUMNS = [
    *(*PATH_COLUMNS, "positions", "measure", "half"),
    *("effect", "low", "high", "n", "n_excluded"),
]


def paths(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """Effects of all paths between the chosen ends, on the held-out half.

    The ends are the pooled heads unless the settings name others; without any path, or where the
    model's paths cannot be patched, the table is empty and the reason is said.

    Raises:
        InputError: ends that were named do not name heads of the model, or give no path.
    """
    config, baseline = subject.config, tables["baseline"]
    named = bool(config.sources or config.destinations)
    sources, destinations = (
        parse_heads(text) if text else pooled_heads(tables[HEADSET])
        for text in (config.sources, config.destinations)
    )
    events = valid_pairs(subject.held_out, baseline)
    try:
        between = paths_between(subject.model, sources, destinations, ROUTES)
        if not events:
            raise InputError("no valid pair in the held-out half")
        check_paths(subject.model, max((event.longest for event in events), key=len))
    except InputError as error:
        if named:
            raise
        subject.reporter.say(f"paths: none ({error})")
        return Made({"paths": pd.DataFrame(columns=COLUMNS)}, {"events": 0, "paths": 0})
    _say_shared(subject, config.destinations, between)
    with subject.reporter.step(f"{len(between)} paths between heads", len(events)) as advance:
        table = path_effects(
            subject.model,
            PromptSet(subject.prompts.task, tuple(events)),
            baseline,
            between,
            [name for name in ("span", "decision") if name in config.positions][:1],
            halves=("verify",),
            n_resamples=config.n_resamples,
            seed=config.seed,
            runs_of=runs_worth_patching(baseline, subject.halves),
            kept=parts,
            progress=advance,
        )
    ends = {
        "sources": [list(head) for head in sources],
        "destinations": [list(head) for head in destinations],
    }
    counts = {"events": len(events), "paths": len(between), "ends": ends}
    return Made({"paths": table.reindex(columns=COLUMNS)}, counts)


def _say_shared(subject: Subject, named: str, between: Sequence[Path]) -> None:
    """One line where a head was named whose key and value are not its own."""
    asked = parse_heads(named) if named else []
    ends = [receivers(subject.model, path) for path in between if path.route != "q"]
    shared = {head_name(*at): group for at in asked for group in ends if at in group}
    if any(len(group) > 1 for group in shared.values()):
        subject.reporter.say(
            "paths: heads share keys and values, so by key and value "
            + ", ".join(
                f"{name} means {' '.join(head_name(*at) for at in group)}"
                for name, group in shared.items()
            )
        )


def pooled_heads(found: HeadSet) -> list[Head]:
    """The heads of all pools."""
    return [(head.layer, head.head) for head in found.heads]
