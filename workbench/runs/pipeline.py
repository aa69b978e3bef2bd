"""The steps of a run as plain functions over an open run folder.

1. *score*: does the model do the task on each event, and did the counterfactuals move it
   (baseline)? Then CoarseScore and RefineScore on the half of the prompts that chooses, and Focus
   and Confusion layer by layer (trajectory).
2. *patch*: causal effects of nominated heads and of random ones, event by event.
3. *pool*: heads that pass the rule on the choosing half; joint effects of each pool, and of control
   sets of the same size, on the half that verifies; the head set.
4. *paths*: through whose query, key or value the pooled heads act on one another.
5. *report*: one HTML page.

A further one, *evidence*, takes longer than all of these: see `workbench.evidence`.

Each step writes its tables and is then never run again in that folder; a sweep that was stopped
goes on with the next event.
"""

from pathlib import Path

from workbench.headsets.headset import HeadSet
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.patch import patch
from workbench.runs.paths import paths
from workbench.runs.pool import _check_span, pool
from workbench.runs.report import report
from workbench.runs.score import score
from workbench.runs.session import (
    open_run,
)


def run(
    out: str | Path,
    *,
    model: HookedModel | str | Path | None = None,
    prompts: PromptSet | str | Path | None = None,
    config: RunConfig = DEFAULTS,
    dtype: str = "float32",
    device: str | None = None,
    reporter: Reporter | None = None,
) -> HeadSet:
    """All steps, on the bundled model and prompts made for it unless others are given.

    Arguments as in `open_run`. The same call takes up a run that was stopped.

    Raises:
        InputError: the folder holds another run, or an input is bad.
    """
    _check_span(config)
    opened = open_run(
        out,
        model=model,
        prompts=prompts,
        config=config,
        make=True,
        dtype=dtype,
        device=device,
        reporter=reporter,
    )
    score(opened)
    patch(opened)
    found = pool(opened)
    paths(opened)
    report(out, reporter=opened.reporter)
    return found
