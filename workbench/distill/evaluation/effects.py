"""Do the heads that a student was taught with carry its two phases: patching the student.

All heads of a pool are patched together over the span, on the student's own valid pairs (see
`workbench.phases`). A student that cannot do the task has none: then nothing is patched, n is 0 and
the effect NaN.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from workbench.analysis.patching.effects import measure_terms
from workbench.analysis.patching.patching import baseline, sweep_event
from workbench.analysis.statistics import Halves
from workbench.heads import Head
from workbench.measures import MEASURES
from workbench.models.hooked import HookedModel
from workbench.phases import Pool, runs_that_count
from workbench.progress import Advance
from workbench.prompts.prompt import PromptSet

COLUMNS = ["setting", "measure", "id", "event", "numerator", "denominator", "counts"]


def pool_terms(
    model: HookedModel,
    prompts: PromptSet,
    heads: Mapping[Pool, Sequence[Head]],
    *,
    progress: Advance | None = None,
) -> pd.DataFrame:
    """What each event contributes to each causal measure of each pool.

    The effect is the sum of the numerators over that of the denominators, both 0 where an event is
    no valid pair.

    Returns:
        columns setting (the pool), measure, id, event, numerator, denominator, counts.

    Raises:
        InputError: a head that the model lacks.
    """
    if not heads:
        return pd.DataFrame(columns=COLUMNS)
    unpatched = baseline(model, prompts, Halves(frozenset(), frozenset(prompts.prompt_ids)))
    base = unpatched.pivot(index=["id", "event"], columns="variant")
    runs = {
        (row["id"], row["event"]): runs_that_count(row)
        for row in unpatched.drop_duplicates(["id", "event"]).to_dict("records")
    }
    wanted = [event for event in prompts if runs[event.id, event.event]]
    groups = list(heads.values())
    frames = []
    for done, event in enumerate(wanted, start=1):
        runs_of = runs[event.id, event.event]
        frames.append(sweep_event(model, event, groups, ("span",), runs=runs_of))
        if progress:
            progress(done, len(wanted))
    if not frames:
        return _no_valid_pair(base.index, heads)
    patched = pd.concat(frames, ignore_index=True)
    tables = []
    for name, measure in MEASURES.items():
        terms = measure_terms(patched, base, measure, by=("target",))
        for target, pool in enumerate(heads):
            columns = {part: value[:, target] for part, value in terms._asdict().items()}
            table = base.index.to_frame(index=False).assign(setting=pool, measure=name)
            tables.append(table.assign(**{part: value.numpy() for part, value in columns.items()}))
    return pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)


def _no_valid_pair(events: pd.Index, heads: Mapping[Pool, Sequence[Head]]) -> pd.DataFrame:
    empty = events.to_frame(index=False).assign(numerator=0.0, denominator=0.0, counts=False)
    tables = [empty.assign(setting=pool, measure=name) for name in MEASURES for pool in heads]
    return pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)
