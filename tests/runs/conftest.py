"""Runs of a few prompts, which have intervals here, so that their steps have something to do."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fixtures.begun_runs import FAST, QUIET, Begin
from fixtures.tiny_runs import save_model, save_prompts

from workbench.headsets.stability import sample_size_curve, selection_stability
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import RunConfig
from workbench.runs.opening import open_run
from workbench.runs.session import OpenRun

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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="session")
def model(folder: Path) -> HookedModel:
    return HookedModel.load(folder, device="cpu")


@pytest.fixture(scope="session")
def prompts(folder: Path) -> PromptSet:
    """Half of ten prompts is what an interval needs here."""
    return save_prompts(folder, folder.parent / "prompts.jsonl", n_prompts=12)


@pytest.fixture
def begin(model: HookedModel, prompts: PromptSet, tmp_path: Path) -> Begin:
    """Opens a run in the test's folder."""

    def begin(config: RunConfig = FAST, out: str = "run", **given: Any) -> OpenRun:
        given = {"model": model, "prompts": prompts, "reporter": QUIET} | given
        return open_run(tmp_path / out, config=config, **given)

    return begin
