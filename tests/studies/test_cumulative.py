from pathlib import Path

import pandas as pd
import pytest
import torch
from fixtures.tiny_runs import save_model, save_prompts

from workbench.analysis.curves import orderings
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.plots.cumulative import cumulative_figure, cumulative_figures, dissociation_figure
from workbench.prompts.prompt import PromptSet
from workbench.studies import cumulative as module
from workbench.studies.cumulative import TABLES, CumulativeStudy, run_cumulative, study_cumulative
from workbench.studies.cumulative_orders import read_ranking
from workbench.studies.reported import reported_cumulative

FAST = CumulativeStudy(sizes=(1, 3), n_random=2, n_last=3, n_resamples=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedModel:
    return HookedModel.load(folder, device="cpu")


@pytest.fixture(scope="module")
def prompts(folder: Path) -> PromptSet:
    return save_prompts(folder, folder.parent / "prompts.jsonl", n_prompts=4)


def test_every_table_says_which_intervention(model, prompts, tmp_path, monkeypatch):
    """Orderings of a table that is given stand beside ours; a finished study is not done again."""
    moved = []

    def queries(model, events, readout, *, last, progress, spread):
        moved.append(last)
        return torch.zeros(2, 4)

    monkeypatch.setitem(orderings.RIVALS, "filter_head", orderings.Rival(queries))
    given = pd.DataFrame([(a, b) for a in range(2) for b in range(4)], columns=["layer", "head"])
    given = given.assign(coarse_mine=range(8), refine_mine=0.5, coarse_mine_low=1.0)
    made = run_cumulative(tmp_path / "out", model, prompts, FAST, {"given": given})
    assert list(made) == list(TABLES)
    for name in ("curves", "areas", "differences", "dissociation"):
        assert set(made[name]["intervention"]) == {"z", "pattern"}
    orders = set(made["curves"]["order"])
    assert {"given mine", "score", "random", "effect of z alone"} <= orders
    assert {"filter_head", "qr_head"} <= orders and "retrieval_head" not in orders
    assert moved == [3, 3]  # once for each readout
    positions = made["positions"]
    assert (positions["patched"] == positions["wanted"]).all() and (positions["n"] > 0).all()
    first = made["orders"].query("name == 'given mine' and readout == 'focus' and rank == 0")
    assert first[["layer", "head"]].to_numpy().tolist() == [[1, 3]]
    whole = made["curves"].query("k == 8 and intervention == 'z'")
    assert whole["explained"].to_numpy() == pytest.approx(1, abs=1e-4)
    monkeypatch.setattr(module, "study_cumulative", None)
    again = run_cumulative(tmp_path / "out", model, prompts, FAST, {"given": given})
    pd.testing.assert_frame_equal(again["areas"], made["areas"])
    with pytest.raises(InputError, match="give another --out"):
        run_cumulative(tmp_path / "out", model, prompts, FAST)
    figure = cumulative_figure(made["curves"], reported_cumulative(), intervention="z")
    names = {trace.name for trace in figure.data if trace.name}
    assert orders < names and any("as reported" in name for name in names)
    assert set(cumulative_figures(made["curves"])) == {"figure3_z", "figure3_pattern"}
    apart = dissociation_figure(made["dissociation"].assign(confirmed=True))
    assert {head for trace in apart.data for head in trace.customdata} >= {"0-0", "1-3"}
    assert {"0-0", "1-3"} <= {name.text for name in apart.layout.annotations}
    one = made["dissociation"].assign(confusion=float("nan"))
    assert not dissociation_figure(one).data and not dissociation_figure(pd.DataFrame()).data
    nothing = cumulative_figure(made["curves"], place="late")
    assert not nothing.data


def test_heads_are_ordered_by_their_effect_at_the_first_place_of_the_settings(model, prompts):
    """Whichever place the rows begin with."""
    settings = {"interventions": ("z",), "rivals": False, "n_resamples": 20, "sizes": (1,)}
    orders = {
        places: study_cumulative(model, prompts, CumulativeStudy(places=places, **settings))[
            "orders"
        ].query("name == 'effect of z alone'")
        for places in [("span",), ("span", "decision"), ("decision", "span")]
    }
    pd.testing.assert_frame_equal(orders["span", "decision"], orders[("span",)])
    assert not orders["decision", "span"].equals(orders[("span",)])


def test_what_cannot_be_ranked_or_patched_is_refused(model, prompts, tmp_path):
    with pytest.raises(InputError, match="has no columns coarse… and refine…"):
        study_cumulative(model, prompts, FAST, {"given": pd.DataFrame({"layer": [0], "head": [0]})})
    with pytest.raises(InputError, match="has no tokenizer"):
        study_cumulative(model, prompts, CumulativeStudy(places=("late",)))
    with pytest.raises(InputError, match=r"a \.csv or a \.parquet file"):
        read_ranking(tmp_path / "scores.txt")
    (tmp_path / "scores.parquet").write_text("no table")
    with pytest.raises(InputError, match="is no readable table"):
        read_ranking(tmp_path / "scores.parquet")
