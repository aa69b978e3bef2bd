"""The steps of a run as plain functions: without a folder, over an open run folder, or all at once.

Each step writes its tables into the run folder; asked again with other settings, it adds to what is
there. A sweep that was stopped goes on with the next event. `workbench.runs.steps` says what the
steps are.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench.headsets.annotate import add_evidence
from workbench.headsets.candidates import explain_empty
from workbench.headsets.headset import HeadSet
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.opening import open_run
from workbench.runs.patch import named_heads
from workbench.runs.place import hold
from workbench.runs.pool import check_span
from workbench.runs.report import report
from workbench.runs.session import OpenRun
from workbench.runs.shown import found_html, found_text
from workbench.runs.steps import HEADSET, steps_of
from workbench.runs.subject import Subject, do_steps


@dataclass(frozen=True)
class FoundHeads:
    """What `find_heads` returns; tables as in a run folder, layers and heads from 0."""

    headset: HeadSet
    """The pooled heads, with their scores, effects and controls."""
    baseline: pd.DataFrame
    """One row an event and variant: id, event, half ("choose" selects, "verify" is held out),
    variant, focus, confusion, p_gold, whether the event is a valid pair for the coarse (counts_far)
    and the refine phase (counts_near), and option_mass, the probability of all options together."""
    scores: pd.DataFrame
    """One row a head, from the selection half: layer, head, each score with its interval (_low,
    _high) and null (_p, _q), output_norm, n."""
    trajectory: pd.DataFrame
    """One row a layer (step) and variant: focus and confusion read out there, with intervals."""
    patching_events: pd.DataFrame
    """One row an event, head, positions and patched run: focus, confusion, group."""
    patching: pd.DataFrame
    """One row a head, positions, measure and half: effect, low, high, n, n_excluded, group."""
    pools: pd.DataFrame
    """Joint effects of each pool and of its controls on the held-out half: pool, set, draw,
    positions, measure, effect, low, high, n, heads."""
    candidates: pd.DataFrame
    """Of a phase whose pool is empty, the heads that come nearest: what of the rule they miss, what
    they have there and what they would need; `why_empty` says it in words."""
    paths: pd.DataFrame
    """One row a path and measure, on the held-out half: src_layer, src_head, dst_layer, dst_heads,
    route (q, k, v), effect, low, high, n, n_excluded, ends (pooled, or the heads asked for)."""

    def why_empty(self, pool: str) -> list[str]:
        """Why the pool of a phase has no head, line by line; nothing where it has any."""
        return explain_empty(self.candidates, pool)

    def __repr__(self) -> str:
        return found_text(self)

    def _repr_html_(self) -> str:
        return found_html(self)


def find_heads(
    model: HookedModel | str | Path | None,
    prompts: PromptSet | str | Path,
    config: RunConfig = DEFAULTS,
    *,
    reporter: Reporter | None = None,
) -> FoundHeads:
    """The heads that carry the two phases, found and proven in memory; `run` keeps a folder.

    Args:
        model: a loaded model, a folder or a hub id; None for the bundled model.
        prompts: a prompt set, or a prompt file.
        config: settings of all steps.
        reporter: where progress is shown; standard error unless given.

    Raises:
        InputError: heads are not patched over the span, or an input is bad.
    """
    check_span(config)
    reporter = reporter or Reporter()
    if not isinstance(model, HookedModel):
        source = bundled_model_path() if model is None else model
        model = HookedModel.load(source, reporter=reporter)
    if not isinstance(prompts, PromptSet):
        prompts = read_prompts(prompts, model=model)
    named_heads(model, config)
    subject = Subject(model, prompts, config, reporter)
    steps = steps_of("score", "patch", "pool", "paths")
    made = do_steps([step for step in steps if step.name != "looks"], subject, {})
    return FoundHeads(**{name: made[name] for name in FoundHeads.__dataclass_fields__})


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
    """All steps and the report, on the bundled model and prompts made for it unless others are
    given.

    Arguments as in `open_run`. The same call takes up a run that was stopped. Of several processes
    each returns the head set, when the main one has made the report.

    Raises:
        InputError: the folder holds another run, or an input is bad.
    """
    check_span(config)
    with hold(Path(out)):
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
        for step in (score, patch, pool, paths):
            step(opened)
        report(out, reporter=opened.reporter)
        found = opened.read(HEADSET)
        opened.together.close()
        return found


def score(opened: OpenRun) -> pd.DataFrame:
    """Baseline of every event, both scores of every head, and the trajectory over layers.

    Returns:
        the scores table.
    """
    opened.do(*steps_of("score"))
    return opened.read("scores")


def patch(opened: OpenRun) -> pd.DataFrame:
    """Causal effects of heads one by one; takes up a stopped sweep at the next event.

    Returns:
        the patching table.

    Raises:
        InputError: a head that the model does not have.
    """
    opened.do(*steps_of("patch"))
    return opened.read("patching")


def pool(opened: OpenRun) -> HeadSet:
    """Pools from the selection half, their joint effects on the held-out half, and the head set.

    Raises:
        InputError: heads are not patched over the span.
    """
    check_span(opened.config)
    opened.do(*steps_of("pool"))
    return _with_evidence(opened)


def paths(opened: OpenRun) -> pd.DataFrame:
    """Causal effects of the paths between heads, on the held-out half; after `pool`.

    Returns:
        the paths table.

    Raises:
        InputError: the ends that the settings name give no path.
    """
    opened.do(*steps_of("paths"))
    return opened.read("paths")


def evidence(opened: OpenRun) -> HeadSet:
    """Stability of the selection, the chain of thought, and faithfulness curves; after `pool`.

    Returns:
        the head set, which now holds the stability and the areas.

    Raises:
        InputError: the held-out half has no valid pair.
    """
    opened.do(*steps_of("evidence"))
    return _with_evidence(opened)


def _with_evidence(opened: OpenRun) -> HeadSet:
    """The head set, with what the evidence says of it where that is there."""
    found = opened.read(HEADSET)
    if not opened.together.is_main:
        return found
    if all(opened.folder.is_done(step.name) for step in steps_of("evidence")):
        amended = add_evidence(found, opened.read("stability"), opened.read("areas"))
        if amended != found:
            found = amended
            with hold(opened.folder.path):
                opened.amend(found)
    return found
