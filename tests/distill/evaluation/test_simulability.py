import json

import pandas as pd
import pytest
from fixtures.distillation import QUIET
from fixtures.tiny_runs import save_reader
from typer.testing import CliRunner

import workbench as wb
from workbench.cli import app
from workbench.distill.evaluation.config import SimulatorConfig
from workbench.distill.evaluation.simulability import las_difference, leakage_adjusted, summarise
from workbench.errors import InputError

CASES = pd.DataFrame(
    [  # prompt, right from the input, from the chain, from both
        ("p0", False, True, True),
        ("p0", True, True, True),
        ("p1", False, True, True),
        ("p1", True, True, False),
        ("p2", False, False, True),
        ("p3", True, False, True),
    ],
    columns=["id", "x", "e", "xe"],
)


def test_each_group_counts_half_whatever_its_size():
    found = leakage_adjusted(CASES, n_resamples=50)
    assert (found["n_leaking"], found["n_other"]) == (4, 2)
    assert found["las_leaking"] == pytest.approx((1 + 0 + 1 - 1) / 4)
    assert found["las_other"] == pytest.approx((1 + 0) / 2)
    assert found["las"] == pytest.approx((0.25 + 0.5) / 2)
    assert found["x"] == pytest.approx(0.5) and found["e"] == pytest.approx(4 / 6)
    many = pd.concat([CASES.assign(id=CASES["id"] + f" {n}") for n in range(10)])
    found = leakage_adjusted(many, n_resamples=200)
    assert found["las"] == pytest.approx(0.375)
    assert found["las_low"] < 0.375 < found["las_high"]


def test_a_group_of_few_examples_has_no_interval():
    many = pd.concat([CASES.assign(id=CASES["id"] + f" {n}") for n in range(10)])
    lone = pd.DataFrame([("p2 0", True, False, True)], columns=CASES.columns)
    one = pd.concat([many.loc[many["e"]], lone], ignore_index=True)
    found = leakage_adjusted(one, n_resamples=200)
    assert found["n_other"] == 1 and found["las_other"] == 0
    ends = [found[f"{name}{end}"] for name in ("las", "las_other") for end in ("_low", "_high")]
    assert all(pd.isna(end) for end in ends)
    assert found["las_leaking_low"] < found["las_leaking"] < found["las_leaking_high"]
    apart = las_difference(many, one, n_resamples=200)
    assert pd.notna(apart["value"]) and pd.isna(apart["low"]) and pd.isna(apart["high"])
    assert pd.notna(las_difference(many, many.assign(xe=many["x"]), n_resamples=200)["low"])


def test_an_empty_group_is_refused_and_said():
    for leaks, said in ((True, "every chain tells"), (False, "no chain tells")):
        with pytest.raises(InputError, match=f"{said}.*LAS is not defined"):
            leakage_adjusted(CASES.assign(e=leaks))
    both = pd.concat([CASES.assign(kind="whole", e=True), CASES.assign(kind="cut")])
    found = summarise(both, n_resamples=20).set_index("kind")
    assert pd.isna(found.loc["whole", "las"]) and "every chain" in found.loc["whole", "note"]
    assert found.loc["whole", "n_leaking"] == 6 and found.loc["whole", "xe"] > 0.8
    assert found.loc["cut", "las"] == pytest.approx(0.375)
    assert found.loc["cut", "note"] == "half of LAS is the mean of 2 examples: it says little"
    many = pd.concat([CASES.assign(id=CASES["id"] + f" {n}", kind="cut") for n in range(10)])
    assert summarise(many, n_resamples=20)["note"].tolist() == [""]
    with pytest.raises(InputError, match="lacks column 'xe'"):
        leakage_adjusted(CASES.drop(columns="xe"))


def test_the_difference_is_over_shared_prompts():
    worse = CASES.assign(xe=CASES["x"])
    more = pd.DataFrame([("p9", False, True, False)], columns=CASES.columns)
    found = las_difference(CASES, pd.concat([worse, more]), n_resamples=20)
    assert found["value"] == pytest.approx(0.375)
    same = las_difference(CASES, CASES, n_resamples=20)["value"]
    assert same == pytest.approx(0.0)


@pytest.fixture(scope="module")
def reader(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulator") / "model"
    return save_reader(tokenizer, folder, n_layers=2, d_model=32, context=64)


def answers(n: int) -> list[dict[str, str]]:
    """The input says nothing; half of the chains say the answer, half say that it is the other."""
    rows = []
    for number in range(n):
        told, other = ("A", "B") if number % 2 else ("B", "A")
        rows.append({"id": f"p{number}", "input": "note:", "chain": f" {told}", "output": told})
        rows[-1]["question"] = "\nanswer:"
        if number % 4 < 2:
            rows[-1] |= {"input": " note: options:", "output": other}
    return rows


def test_a_simulator_learns_what_chain_and_input_tell_together(reader):
    """Who sees both knows whether the chain is to be believed; either alone is a coin."""
    config = SimulatorConfig(steps=80, batch_size=8, learning_rate=1e-2)
    found = wb.distill.simulability(
        answers(64), [{**row, "id": "t" + row["id"]} for row in answers(16)],
        simulator=reader, config=config, device="cpu", reporter=QUIET, n_resamples=20,
    )  # fmt: skip
    assert found.cases["xe"].mean() == 1
    assert 0.2 < found.cases["x"].mean() < 0.8 and 0.2 < found.cases["e"].mean() < 0.8
    assert found.summary["las"].iloc[0] > 0.2
    assert not {"input", "chain"} & set(found.cases)
    assert found.simulator["n_learnt_from"] == 64 and found.simulator["last_loss"] < 1


def test_prompts_are_not_in_both_tables(reader):
    with pytest.raises(InputError, match="2 prompts are in both tables, first 'p0'"):
        wb.distill.simulability(answers(4), answers(2), simulator=reader)


def test_own_rows_by_the_command(reader, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in answers(10)))
    flags = ["--rows", str(path), "--simulator", str(reader), "--steps", "1", "--device", "cpu"]
    flags += ["--n-resamples", "5", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["simulability", *flags])
    assert done.exit_code == 0, done.output
    assert len(pd.read_csv(tmp_path / "out" / "cases.csv")) == 2
    refused = CliRunner().invoke(app, ["simulability", *flags, "--part", "1/2"])
    assert refused.exit_code != 0 and "of one model" in refused.output
