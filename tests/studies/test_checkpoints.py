"""The study of checkpoints: its numbers are those of the analysis, and it can be stopped."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.headsets import head_record, headset_document, model_record
from fixtures.tiny_runs import save_model, save_prompts
from transformers import AutoModelForCausalLM

from workbench.analysis.patching.patching import baseline, joint_effects
from workbench.analysis.scores.scores import score_heads
from workbench.analysis.statistics import split_half
from workbench.errors import InputError
from workbench.headsets.headset import HeadSet, parse
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import RunConfig
from workbench.studies import checkpoints as training_study
from workbench.studies.checkpoints import read_terms, study_checkpoints
from workbench.studies.formation import formation

CONFIG = RunConfig(n_resamples=50)
COARSE, REFINE, EXTRA = [(0, 1), (1, 3)], [(1, 0)], (0, 2)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], PromptSet]:
    """Two checkpoints of a tiny model; on the prompts only the later one does the task."""
    root = tmp_path_factory.mktemp("snapshots")
    late = save_model("llama", root / "step-000020")
    prompts = save_prompts(late, root / "prompts.jsonl", n_prompts=5)
    early = AutoModelForCausalLM.from_pretrained(late)
    with torch.no_grad():
        for weight in early.parameters():
            weight.mul_(0.3)
    early.save_pretrained(root / "step-000010")
    return [late, root / "step-000010"], prompts


@pytest.fixture(scope="module")
def headset() -> HeadSet:
    heads = [head_record(*at, "coarse", 0.5) for at in COARSE]
    heads.append(head_record(*REFINE[0], "refine", 1.0))
    return parse(json.dumps(headset_document(model_record(2, 4, 2), heads)))


def study(checkpoints, headset, **more):
    folders, prompts = checkpoints
    arguments = {"extra_heads": [EXTRA], "config": CONFIG, "device": "cpu", **more}
    return study_checkpoints(folders, prompts=prompts, headset=headset, **arguments)


@pytest.fixture(scope="module")
def table(checkpoints, headset) -> pd.DataFrame:
    return study(checkpoints, headset)


def row(table: pd.DataFrame, step: int, quantity: str, pool: str, at=(None, None)) -> pd.Series:
    same = (table["step"] == step) & (table["quantity"] == quantity) & (table["pool"] == pool)
    for name, value in zip(("layer", "head"), at, strict=True):
        same &= table[name].isna() if value is None else (table[name] == value).fillna(False)
    assert same.sum() == 1
    return table.loc[same].iloc[0]


def test_effects_are_those_of_joint_patching(checkpoints, table) -> None:
    folders, prompts = checkpoints
    model = HookedModel.load(folders[0], device="cpu")
    base = baseline(model, prompts, split_half(prompts.prompt_ids))
    groups = [COARSE, [COARSE[1]], REFINE, [EXTRA]]
    names = [("coarse", (None, None)), ("coarse", COARSE[1])]
    names += [("refine", (None, None)), ("extra", EXTRA)]
    effects = joint_effects(model, prompts, base, groups, ["span"], halves=["all"], n_resamples=50)
    effects = effects.set_index(["target", "measure"])
    for target, name in enumerate(names):
        for measure in ("coarse_restore", "coarse_disrupt", "refine_reduce", "refine_boost_abs"):
            found, expected = row(table, 20, measure, *name), effects.loc[(target, measure)]
            assert found["value"] == pytest.approx(expected["effect"], abs=1e-5)
            assert found["n"] == expected["n"] == len(prompts)
            assert np.isnan(found["low"]) and np.isnan(expected["low"])  # of five prompts
    for name in ("focus", "confusion", "p_gold"):
        for variant, rows in base.groupby("variant"):
            value = row(table, 20, f"{name}_{variant}", "model")["value"]
            assert value == pytest.approx(rows[name].mean(), abs=1e-5)


def test_scores_are_those_of_the_analysis(checkpoints, table) -> None:
    folders, prompts = checkpoints
    model = HookedModel.load(folders[1], device="cpu")
    scores = score_heads(model, prompts, n_resamples=1, n_permutations=1)
    for quantity in ("coarse", "refine"):
        value = scores.set_index(["layer", "head"])[quantity]
        name = f"{quantity}_score"
        pool = row(table, 10, name, "coarse")["value"]
        assert pool == pytest.approx(value.loc[COARSE].mean(), abs=1e-6)
        best = value.drop(index=[*COARSE, *REFINE]).idxmax()
        assert row(table, 10, name, "other", best)["value"] == pytest.approx(value[best], abs=1e-6)
        moment = table[(table["step"] == 10) & (table["pool"] == f"moment_{quantity}")]
        heads = moment.dropna(subset=["layer"])[["layer", "head"]].drop_duplicates()
        assert [tuple(at) for at in heads.to_numpy(int)] == value.nlargest(4).index.tolist()


def test_too_few_counting_events_give_no_share_but_a_difference(table) -> None:
    share, moved = (row(table, 10, name, "coarse") for name in ("coarse_restore", "focus_moved"))
    assert share["n"] == 0
    assert np.isnan(share["value"])
    assert moved["n"] == 6
    assert np.isfinite(moved["value"])


def test_difference_over_all_events_is_the_numerator_of_the_share(table) -> None:
    share, moved = (row(table, 20, name, "refine") for name in ("refine_reduce", "confusion_moved"))
    near = row(table, 20, "confusion_near", "model")["value"]
    assert moved["value"] == pytest.approx(share["value"] * near)


def test_a_stopped_study_goes_on_and_is_then_finished(
    checkpoints, headset, table, tmp_path, monkeypatch
) -> None:
    real, seen = training_study._checkpoint_terms, []

    def stop_at_20(model, *rest):
        seen.append(model.info.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(model, *rest)

    monkeypatch.setattr(training_study, "_checkpoint_terms", stop_at_20)
    out = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        study(checkpoints, headset, out=out)
    with pytest.raises(InputError, match="no finished study"):
        read_terms(out)
    for _ in range(2):
        pd.testing.assert_frame_equal(study(checkpoints, headset, out=out), table)
    assert seen == ["step-000010", "step-000020", "step-000020"]
    dates = formation(table, read_terms(out), n_resamples=50)
    assert dates["step"].equals(formation(table)["step"])
    assert dates["low"].isna().all()  # of five prompts
    with pytest.raises(InputError, match=r"study\.heads\.extra"):
        study(checkpoints, headset, out=out, extra_heads=[])
    with pytest.raises(InputError, match="begun with 2 checkpoints, not 1"):
        study((checkpoints[0][:1], checkpoints[1]), headset, out=out)


def test_bad_folders_and_heads_are_named(checkpoints, headset, tmp_path) -> None:
    folders, prompts = checkpoints
    for bad, message in (
        ([], "no checkpoint folder"),
        ([tmp_path / "final"], "final: the name .* step-NUMBER"),
        ([folders[0], tmp_path / "step-20"], "step 20 is given twice"),
        ([tmp_path / "step-7"], "step-7"),
    ):
        with pytest.raises(InputError, match=message):
            study((bad, prompts), headset)
    with pytest.raises(InputError, match=r"\(layer 5, head 0\)"):
        study(checkpoints, headset, extra_heads=[(5, 0)])


def made_up(curves: dict[tuple[str, str], list[float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table at steps 0, 100, 200, … and terms of 16 prompts, half or one and a half of it."""
    rows = [
        {"step": 100 * index, "quantity": quantity, "layer": np.nan, "head": np.nan, "pool": pool}
        | {"value": value, "low": value, "high": value, "n": 2}
        for (quantity, pool), values in curves.items()
        for index, value in enumerate(values)
    ]
    table = pd.DataFrame(rows)
    terms = [
        table.assign(event=k, prompt=k, numerator=table["value"] * f, denominator=1.0)
        for k, f in enumerate((0.5, 1.5) * 8)
    ]
    return table, pd.concat(terms, ignore_index=True)


def test_formation_dates_half_of_the_last_value() -> None:
    curves = {
        ("coarse_score", "coarse"): [0.0, 0.2, 0.6, 0.8],
        ("refine_score", "refine"): [0.0, 0.0, 0.0, 2.0],
        ("focus_moved", "coarse"): [0.5, 0.1, 0.6, 0.6],
        ("confusion_moved", "refine"): [0.0, 0.1, 0.0, -0.1],
        ("coarse_restore", "coarse"): [np.nan, np.nan, 0.9, 1.0],
        ("refine_reduce", "refine"): [np.nan, 0.1, 0.9, 1.0],
        ("confusion_clean", "model"): [0.9, 0.9, 0.3, 0.0],
    }
    table, terms = made_up(curves)
    dates = formation(table, terms, n_resamples=50).set_index(["kind", "pool"])
    assert dates["step"].to_dict() == pytest.approx(
        {
            ("score", "coarse"): 150.0,
            ("score", "refine"): 250.0,
            ("score", "refine - coarse"): 100.0,
            ("moved", "coarse"): 0.0,
            ("moved", "refine"): np.nan,  # it ends below 0
            ("moved", "refine - coarse"): np.nan,
            ("share", "coarse"): 200.0,  # not measured before
            ("share", "refine"): 150.0,
            ("share", "refine - coarse"): -50.0,
            ("model", "coarse"): np.nan,  # missing
            ("model", "refine"): 175.0,  # 1 − Confusion, half-way up from 0.1
            ("model", "refine - coarse"): np.nan,
        },
        nan_ok=True,
    )
    late = dates.index[dates["at_most"]].tolist()
    assert set(late) >= {("moved", "coarse"), ("share", "coarse"), ("share", "refine - coarse")}
    assert not dates.loc[[("score", "coarse"), ("share", "refine")], "at_most"].any()
    # All prompts have the same curve but for its height, so every resample has the same date.
    score = dates.loc[("score", "coarse")]
    assert (score["low"], score["high"]) == pytest.approx((150.0, 150.0))
    assert formation(table)[["low", "high"]].isna().all(axis=None)


def test_formation_intervals_come_from_prompts() -> None:
    table, terms = made_up({("coarse_score", "coarse"): [0.0, 0.5, 1.0]})
    # Half of the prompts are early and half late: more of one kind dates nearer to 50 or to 150.
    early, late = [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]
    terms["numerator"] = (early + late) * 8
    date = formation(table, terms, n_resamples=200).iloc[0]
    assert date["step"] == pytest.approx(100.0)
    assert 50 < date["low"] < 95 and 105 < date["high"] < 150


def test_formation_refuses_another_table() -> None:
    with pytest.raises(InputError, match="lacks column 'pool'"):
        formation(pd.DataFrame(columns=["step", "quantity", "layer", "head"]))
