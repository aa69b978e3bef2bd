"""How a run and what `find_heads` found show themselves; never a word of a prompt."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.analysis.patching.patching import event_counts
from workbench.headsets.shown import describe, headset_html
from workbench.markup import Piece, table, text
from workbench.prompts.shown import describe_set
from workbench.runs.steps import HEADSET, MAKER, STEPS
from workbench.runs.summary import explain_counts

if TYPE_CHECKING:
    from workbench.headsets.headset import HeadSet
    from workbench.runs.pipeline import FoundHeads
    from workbench.runs.session import OpenRun


def run_lines(opened: "OpenRun") -> list[str]:
    """What the run is of, its steps, and what it found as far as it has come."""
    done = [step.name for step in STEPS if opened.folder.was_done(step.name)]
    left = [step.name for step in STEPS if step.name not in done]
    lines = [
        f"run {opened.folder.path} of {opened.model!r}",
        describe_set(opened.prompts),
        f"done: {', '.join(done) or 'nothing'}; not done: {', '.join(left) or 'nothing'}",
    ]
    if MAKER["baseline"].name in done:
        lines += pair_lines(opened.read("baseline"))
    return lines


def run_html(opened: "OpenRun") -> str:
    """The same lines, and the pools where they were made."""
    return _html(run_lines(opened), _headset(opened))


def run_text(opened: "OpenRun") -> str:
    """The same in plain text."""
    found = _headset(opened)
    return "\n".join([*run_lines(opened), *([describe(found)] if found else [])])


def _headset(opened: "OpenRun") -> "HeadSet | None":
    return opened.read(HEADSET) if opened.folder.was_done(MAKER[HEADSET].name) else None


def found_text(found: "FoundHeads") -> str:
    """The head set, valid pairs, and which tables there are."""
    sizes = ", ".join(f"{name} ({rows:,} rows)" for name, rows in _tables(found).items())
    lines = [describe(found.headset), *pair_lines(found.baseline), f"tables: {sizes}"]
    return "\n".join(lines)


def found_html(found: "FoundHeads") -> str:
    """The same as HTML."""
    rows = [{"table": f".{name}", "rows": f"{n:,}"} for name, n in _tables(found).items()]
    return _html(pair_lines(found.baseline), found.headset) + table(rows)


def _tables(found: "FoundHeads") -> dict[str, int]:
    values: dict[str, Any] = vars(found)
    return {name: len(one) for name, one in values.items() if isinstance(one, pd.DataFrame)}


def pair_lines(baseline: pd.DataFrame) -> list[str]:
    """How many events are valid pairs, of each counterfactual."""
    return [explain_counts(row.pop("variant"), row) for row in event_counts(baseline)]


def _html(lines: list[str], found: "HeadSet | None") -> str:
    return text([Piece("\n".join(lines))]) + (headset_html(found) if found else "")
