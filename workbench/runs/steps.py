"""The steps of a run, declared once: what each needs, makes and depends on, and what does it.

    baseline, score, trajectory   does the model do the task on each event, and did the
                                  counterfactuals move it? CoarseScore and RefineScore of every
                                  head, on the selection half; Focus and Confusion layer by layer
    screen, patch                 causal effects of nominated heads and random ones, event by event
    passing, pool                 what heads that may be pooled only pass on; heads that pass the
                                  rule on the selection half; joint effects of each pool, and of
                                  control sets of its size, on the held-out half
    looks                         where pooled and nominated heads look, and what they write: the
                                  pages of heads in the report
    paths                         through whose query, key or value pooled heads act on one another
    stability, chain, curves      the evidence: would other prompts choose the same heads; the two
                                  phases along the chain of thought; how much rests on these heads

The work of a step is a pure function of the model, the prompts, the settings and the tables of
earlier steps. A run folder stores tables and resumes (`workbench.runs.session`); `find_heads` keeps
them in memory. This module loads nothing heavy: the command line reads it for its flags.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from workbench.headsets.thresholds import Thresholds
from workbench.runs.config import PROMPT_SETTINGS, RunConfig

HEADSET = "headset"
"""Made by `pool`, and handed on like a table."""


def file_of(name: str) -> str:
    """The file of a run folder that holds a table, or the head set."""
    return f"{name}.{'json' if name == HEADSET else 'parquet'}"


@dataclass(frozen=True)
class Step:
    """One step of a run."""

    name: str
    command: str
    """The command, and the function, that does it."""
    work: str
    """Module of this package and its function: (subject, tables, parts if resumable) → Made."""
    needs: tuple[str, ...] = ()
    """Tables of earlier steps; those of a step that is not wanted are left out."""
    makes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """What decides its result, with `seed`, the weights and the prompts."""
    resumable: bool = False
    """Whether its events are kept one by one, so that a stopped step goes on at the next."""
    keeps: str = ""
    """Table of rows of single events that the step takes up when it is done again."""
    adds: tuple[str, ...] = ()
    """Settings whose earlier values stay: what was asked for with them is done, too."""
    fixed: tuple[str, ...] = ()
    """Settings that may not differ in one folder."""
    wanted: Callable[[RunConfig], bool] = lambda config: True

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files in a run folder that hold what it makes."""
        return tuple(file_of(name) for name in self.makes)

    def do(self, *given: Any) -> "Made":
        """Do the work; arguments as `work` takes them."""
        module, _, function = self.work.partition(":")
        return getattr(import_module(f"workbench.runs.{module}"), function)(*given)


@dataclass(frozen=True)
class Made:
    """What a step made: its tables by name, and counts for the manifest."""

    tables: dict[str, Any]
    counts: dict[str, Any]
    rows: Any = None
    """Rows of single events that the step keeps, if it does and no table of its own holds them."""


_POOLING = tuple(Thresholds.__dataclass_fields__)

STEPS = (
    Step("baseline", command="score", work="score:baseline", makes=("baseline",), keeps="baseline"),
    Step(
        "score",
        command="score",
        work="score:scores",
        makes=("scores",),
        settings=("n_resamples", "n_permutations"),
    ),
    Step(
        "trajectory",
        command="score",
        work="score:trajectory",
        makes=("trajectory",),
        settings=("n_resamples",),
    ),
    Step(
        "screen",
        command="patch",
        work="patch:screen",
        needs=("baseline",),
        makes=("screen",),
        wanted=lambda config: config.heads == "screen",
    ),
    Step(
        "patch",
        command="patch",
        work="patch:patch",
        needs=("baseline", "scores", "screen"),
        makes=("patching_events", "patching"),
        settings=(
            *("heads", "positions", "intervention", "n_nominated", "n_screened", "n_controls"),
            "n_resamples",
        ),
        resumable=True,
        keeps="patching_events",
        adds=("heads", "n_nominated", "n_screened", "n_controls"),
        fixed=("intervention",),
    ),
    Step(
        "sets",
        command="pool",
        work="sets:sets",
        needs=("baseline", "scores", "patching"),
        makes=("sets",),
        settings=(*_POOLING, "n_paired", "n_resamples"),
        resumable=True,
        keeps="rows/sets",
        wanted=lambda config: config.n_paired > 0,
    ),
    Step(
        "passing",
        command="pool",
        work="pool:passing",
        needs=("baseline", "scores", "patching", "sets"),
        makes=("passing",),
        settings=(*_POOLING, "n_paired", "n_resamples"),
        resumable=True,
        keeps="rows/passing",
    ),
    Step(
        "pool",
        command="pool",
        work="pool:pool",
        needs=("baseline", "scores", "patching", "passing", "sets"),
        makes=("pools", HEADSET, "candidates"),
        settings=(
            *(*_POOLING, "n_paired", "positions", "draws", "n_resamples"),
            *("chain_scores", "n_chain"),
        ),
        resumable=True,
        keeps="rows/pool",
    ),
    Step(
        "looks",
        command="pool",
        work="looks:looks",
        needs=("baseline", "scores", "patching_events", "patching", HEADSET),
        makes=("looks", "look_events", "look_rows"),
        resumable=True,
    ),
    Step(
        "paths",
        command="paths",
        work="paths:paths",
        needs=("baseline", HEADSET),
        makes=("paths",),
        settings=("sources", "destinations", "positions", "n_resamples"),
        resumable=True,
        keeps="rows/paths",
        adds=("sources", "destinations"),
    ),
    Step(
        "stability",
        command="evidence",
        work="evidence:stability",
        needs=("baseline", "scores", "patching_events", "patching", "passing"),
        makes=("stability", "sample_size", "winners_curse"),
        settings=_POOLING,
    ),
    Step(
        "chain",
        command="evidence",
        work="evidence:chain",
        needs=("baseline", HEADSET),
        makes=("chain", "turning_points", "chain_tokens", "chain_effects"),
        settings=("n_resamples",),
    ),
    Step(
        "curves",
        command="evidence",
        work="evidence:curves",
        needs=("baseline", "scores", "patching", HEADSET),
        makes=("orders", "curves", "areas"),
        settings=("n_resamples",),
        resumable=True,
    ),
)
"""In the order in which they are done."""

BY_NAME = {step.name: step for step in STEPS}
MAKER = {name: step for step in STEPS for name in step.makes}
"""Table → the step that makes it."""

IN_REPORT = ("baseline", "scores", "trajectory", "patching", "pools")
"""What the report needs, with the head set; it shows paths, looks and evidence where they are."""


def steps_of(*commands: str) -> tuple[Step, ...]:
    """The steps that these commands do, in order."""
    return tuple(step for step in STEPS if step.command in commands)


def settings_of(*commands: str) -> tuple[str, ...]:
    """The settings that decide what these commands find, in the order of `RunConfig`."""
    used = {name for step in steps_of(*commands) for name in step.settings} | {"seed"}
    used |= set(PROMPT_SETTINGS) if "prompts" in commands else set()
    return tuple(name for name in RunConfig.__dataclass_fields__ if name in used)
