from pathlib import Path

import pandas as pd
import pytest
from fixtures.tiny_runs import save_model, save_prompts
from rich.console import Console

from workbench.bench import sweep as module
from workbench.bench.sweep import bench_sweep
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.runs.config import RunConfig


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("sweep")
    prompts = save_prompts(save_model("llama", folder / "model"), folder / "prompts.jsonl")
    model = HookedModel.load(folder / "model", device="cpu")
    config = RunConfig(n_screened=1, n_controls=2)
    return bench_sweep(model, prompts, config, Reporter(Console(quiet=True)))


def test_ratios_are_those_of_the_seconds(result):
    loop, screened = result["loop"]["seconds"], result["screened"]
    assert result["loop_over_full"] == pytest.approx(loop / result["full"]["seconds"])
    assert result["loop_over_screened"] == pytest.approx(loop / screened["seconds"])
    assert 0 < screened["estimating_seconds"] < screened["seconds"]
    assert (result["heads"], result["runs"], result["events"]) == (8, 5, 9)
    assert 1 <= screened["heads"] <= 4 and screened["controls"] <= 2


def test_recall_counts_heads_that_matter_in_any_measure():
    effects = pd.DataFrame(
        [
            (0, 0, "coarse_restore", 0.2),
            (0, 1, "coarse_disrupt", -0.3),
            (0, 2, "coarse_restore", 0.04),
            (0, 3, "refine_boost", 9.0),  # a ratio to a small number: not among those judged
            (0, 3, "refine_boost_abs", 0.01),
        ],
        columns=["layer", "head", "measure", "effect"],
    )
    recall = module._recall(effects, [(0, 0), (0, 2)])
    assert recall["heads_that_matter"] == 2
    assert recall["of_these_kept"] == 1 and recall["recall"] == 0.5
    assert recall["largest_effect_lost"] == pytest.approx(0.3)
    assert module._recall(effects, [(0, 0), (0, 1)])["recall"] == 1.0
