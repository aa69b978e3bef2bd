"""What a run found, as a short table for the terminal."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from workbench.analysis.option_mass import explain_mass, mass_counts, mass_warning
from workbench.analysis.patching.patching import event_counts
from workbench.heads import head_name
from workbench.headsets.candidates import MORE, explain_empty
from workbench.headsets.headset import load
from workbench.measures import MEASURES
from workbench.phases import MIN_PROMPTS, PHASES
from workbench.plots.style import percent
from workbench.roles import HEAD_POOLS, POOL_WORDS
from workbench.runs.folder import RunFolder
from workbench.runs.steps import MAKER


def summary(out: str | Path) -> Group:
    """Pools with their joint effects over the span beside the controls, and where the files lie (a
    report that shows an earlier state is left out);
    how many events are valid pairs, and how much of the probability the options hold.

    Raises:
        InputError: no run there, or its pools were not made.
    """
    folder = RunFolder.open(Path(out))
    folder.require(MAKER["pools"])
    found, pools = load(folder.path / "headset.json"), folder.read_table("pools")
    columns = ("pool", "heads", "joint effect", "95 %", "random heads", "largest output", "n")
    table = Table(*columns, title="joint effects on the held-out half")
    for pool in HEAD_POOLS:
        if pool not in PHASES and not found.in_pool(pool):
            continue
        heads = " ".join(head_name(head.layer, head.head) for head in found.in_pool(pool))
        table.add_row(pool, heads or "none", *_effects(pools, pool))
    files = [
        Text(f"{word}: {folder.path / name}")
        for word, name in (("head set", "headset.json"), ("report", "report.html"))
        if (folder.path / name).is_file() and (word != "report" or folder.is_done(word))
    ]
    baseline = folder.read_table("baseline")
    counts = {row.pop("variant"): row for row in event_counts(baseline)}
    pairs = [Text(explain_counts(variant, counts[variant])) for variant in ("far", "near")]
    empty = [Text(f"{pool}: {line}") for pool, why in why_empty(folder).items() for line in why]
    mass = mass_of(folder, baseline)
    said = [Text(line) for line in (explain_mass(mass), mass_warning(mass)) if line]
    return Group(table, *empty, *pairs, *said, *files)


def why_empty(folder: RunFolder) -> dict[str, list[str]]:
    """Phase → why its pool has no head, line by line; nothing where the run has no such table."""
    if not folder.has_table("candidates"):
        return {}
    candidates = folder.read_table("candidates")
    return {pool: explain_empty(candidates, pool) for pool in PHASES}


def mass_of(folder: RunFolder, baseline: pd.DataFrame) -> dict[str, Any]:
    """What the options hold, with the likely mistake that the run found where it is little."""
    found = folder.manifest["steps"]["baseline"]["counts"].get("option_mass", {})
    return mass_counts(baseline) | ({"mistake": found["mistake"]} if "mistake" in found else {})


def _effects(pools: pd.DataFrame, pool: str) -> list[str]:
    """Cells after the heads: the pool's chief measure over the span, and what controls reach."""
    measure = POOL_WORDS[pool].measure
    here = (pools["pool"] == pool) & (pools["measure"] == measure) & (pools["positions"] == "span")
    rows = {name: pools.loc[here & (pools["set"] == name)] for name in ("pool", "random", "norm")}
    if rows["pool"].empty:
        return ["–"] * 5
    joint = rows["pool"].iloc[0]
    random, norm = rows["random"]["effect"], rows["norm"]["effect"]
    return [
        f"{MEASURES[measure].title} {percent(joint['effect'])}",
        f"{percent(joint['low'])} to {percent(joint['high'])}",
        f"{percent(random.min())} to {percent(random.max())}" if len(random) else "–",
        percent(norm.mean()) if len(norm) else "–",
        str(int(joint["n"])),
    ]


def explain_counts(variant: str, counts: dict[str, int]) -> str:
    """One line: how many events are valid pairs, how many are not, and why."""
    return (
        f"{variant}: {counts['counted']} of {counts['events']} events are valid pairs; "
        f"{counts['failed']} fail on the clean prompt (Focus below 0.5 or Confusion above 0.5), "
        f"{counts['unmoved']} were moved too little by the counterfactual"
    )


def explain_too_few(baseline: pd.DataFrame) -> list[str]:
    """A line for each phase and half with too few valid pairs for intervals: what that costs."""
    lines = []
    clean = baseline.loc[baseline["variant"] == "clean"]
    costs = {"choose": "no head can be pooled", "verify": "effects have no intervals"}
    for phase in PHASES.values():
        for half, cost in costs.items():
            counted = clean[(clean["half"] == half) & clean[phase.valid].astype(bool)]
            if (n := counted["id"].nunique()) < MIN_PROMPTS:
                name = {"choose": "selection", "verify": "held-out"}[half]
                lines.append(
                    f"{phase.name}: {n} prompts of the {name} half are valid pairs, intervals need "
                    f"{MIN_PROMPTS}: {cost}; {MORE} help"
                )
    return lines
