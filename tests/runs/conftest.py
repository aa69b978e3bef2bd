"""Runs of a few prompts, which have intervals here, so that their steps have something to do."""

from collections.abc import Iterator
from functools import partial

import pytest

from workbench.headsets.stability import sample_size_curve, selection_stability

QUICK = {"n_permutations": 99, "n_inner": 50}


@pytest.fixture(autouse=True, scope="module")
def few_prompts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("statistics", "patching.effects"):
            patch.setattr(f"workbench.analysis.{module}.MIN_PROMPTS", 5)
        yield


@pytest.fixture(autouse=True, scope="module")
def few_resamples() -> Iterator[None]:
    """How firm a selection is, of fewer draws than a run takes."""
    with pytest.MonkeyPatch.context() as patch:
        for function, few in (
            (selection_stability, {"n_resamples": 20}),
            (sample_size_curve, {"n_subsets": 5}),
        ):
            name = f"workbench.runs.evidence.{function.__name__}"
            patch.setattr(name, partial(function, **few, **QUICK))
        yield
