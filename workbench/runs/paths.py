"""The paths step: through whose query, key or value the pooled heads act on one another."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.analysis.patching.paths import (
    PATH_COLUMNS,
    path_effects,
    paths_between,
)
from workbench.errors import InputError
from workbench.heads import Head, parse_heads
from workbench.headsets import headset as headset_file
from workbench.headsets.headset import HeadSet
from workbench.models.path_edges import ROUTES, check_paths
from workbench.phases import valid_pairs
from workbench.prompts.prompt import PromptSet
from workbench.runs.folder import _outdate_reports
from workbench.runs.session import HEADSET_FILE, OpenRun

COLUMNS = [
    *PATH_COLUMNS,
    "positions",
    "measure",
    "half",
    "effect",
    "low",
    "high",
    "n",
    "n_excluded",
]


def make_paths(opened: OpenRun, found: HeadSet) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Effects of all paths between the chosen ends, on the verifying half, and counts.

    The ends are the pooled heads unless the settings name others; without any path, or where the
    model's paths cannot be patched, the table is empty and the reason is said.

    Raises:
        InputError: ends that were named do not name heads of the model, or give no path.
    """
    config = opened.config
    named = bool(config.sources or config.destinations)
    pooled = [(head.layer, head.head) for head in found.heads]
    sources, destinations = (
        parse_heads(text) if text else pooled for text in (config.sources, config.destinations)
    )
    verify = opened.prompts.subset(sorted(opened.halves.verify))
    baseline = opened.folder.read_table("baseline")
    events = valid_pairs(verify, baseline)
    try:
        check_paths(opened.model)
        paths = paths_between(opened.model, sources, destinations, ROUTES)
        if not events:
            raise InputError("no event of the verifying half counts")
    except InputError as error:
        if named:
            raise
        opened.reporter.say(f"paths: none ({error})")
        return pd.DataFrame(columns=COLUMNS), {"events": 0, "paths": 0}
    with opened.reporter.step(f"{len(paths)} paths between heads", len(events)) as advance:
        table = path_effects(
            opened.model,
            PromptSet(verify.task, tuple(events)),
            baseline,
            paths,
            [name for name in ("span", "decision") if name in config.positions][:1],
            halves=("verify",),
            n_resamples=config.n_resamples,
            seed=config.seed,
            runs_of=opened.runs_of,
            progress=advance,
        )
    counts = {"events": len(events), "paths": len(paths), "ends": _ends(sources, destinations)}
    return table.reindex(columns=COLUMNS), counts


def _ends(sources: Sequence[Head], destinations: Sequence[Head]) -> dict[str, list[list[int]]]:
    return {
        "sources": [list(head) for head in sources],
        "destinations": [list(head) for head in destinations],
    }


def paths(opened: OpenRun) -> pd.DataFrame:
    """Causal effects of the paths between heads, on the half that verifies; after `pool`.

    Returns:
        the paths table.

    Raises:
        InputError: `pool` was not run, or the ends that the settings name give no path.
    """
    opened.folder.require("pool", "pool")

    def work() -> dict[str, Any]:
        found = headset_file.load(opened.folder.path / HEADSET_FILE)
        table, counts = make_paths(opened, found)
        opened.folder.write_table("paths", table)
        return counts

    opened.folder.forget_unless("paths", opened.config.of_step("paths"))
    if not opened.folder.is_done("paths"):
        _outdate_reports(opened.folder)
    opened.do("paths", work)
    return opened.folder.read_table("paths")
