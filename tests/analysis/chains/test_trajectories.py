import pandas as pd
import pytest
import torch

from workbench.analysis.chains.tokens import token_trajectory, token_values
from workbench.analysis.chains.trajectories import (
    chain_trajectory,
    chain_values,
    early_option_logits,
    turning_points,
)
from workbench.analysis.readout import Roles, focus_confusion
from workbench.errors import InputError
from workbench.prompts.chain import Chain, ChainCase

STEPS = ((11, 22, 33), (44, 55), (7, 8, 9))


def case_of(event, stages=("coarse", "fine", "after"), cue=2, options=()) -> ChainCase:
    """Three steps between the event's question and the last tokens of its prompt."""
    question = event.clean[: len(event.clean) - cue]
    tokens = (60, *(token for step in STEPS for token in step))
    chain = Chain(question, tokens, (4, 6, 9), stages, n_opening=1)
    return ChainCase(event, event.clean[len(question) :], {"clean": chain}, options)


@pytest.fixture
def cases(prompts) -> list[ChainCase]:
    stages = [("coarse", "fine", "after"), ("before", "coarse", "fine")]
    return [case_of(event, stages[index % 2]) for index, event in enumerate(prompts)]


@pytest.mark.parametrize("cue", [2, 0])
def test_each_step_is_the_answer_of_the_shortened_prompt(model, event, cue):
    case = case_of(event, cue=cue)
    logits = early_option_logits(model, case)
    assert logits.shape == (4, 7)
    for step, kept in enumerate((0, 4, 6, 9)):
        [run] = model.run([[*case.clean.question, *case.clean.tokens[:kept], *case.cue]])
        torch.testing.assert_close(logits[step], run.logits[event.option_tokens], atol=1e-4, rtol=0)


@pytest.mark.parametrize("cue", [2, 0])
def test_the_quick_way_agrees_with_the_texts_probabilities(model, event, cue):
    case = case_of(event, cue=cue)
    quick = early_option_logits(model, case).softmax(-1)
    exact = early_option_logits(model, case, quick=False).softmax(-1)
    torch.testing.assert_close(quick, exact, atol=1e-5, rtol=0)


def test_options_of_several_tokens_have_the_probability_of_their_text(model, event):
    options = tuple((5, *range(index)) for index in range(7))
    got = early_option_logits(model, case_of(event, options=options))
    case = case_of(event)
    for step, kept in enumerate((0, 4, 6, 9)):
        prompt = [*case.clean.question, *case.clean.tokens[:kept], *case.cue]
        for column, option in enumerate(options):
            places = range(len(prompt) - 1, len(prompt) + len(option) - 1)
            log_probs = model.logits_at(torch.tensor([[*prompt, *option]]), places)[0]
            expected = log_probs.log_softmax(-1)[range(len(option)), list(option)].sum()
            assert float(got[step, column]) == pytest.approx(float(expected), abs=1e-4)


def test_step_zero_is_the_direct_answer(model, cases):
    values = chain_values(model, cases)
    for case in cases:
        [run] = model.run([case.event.clean])
        focus, confusion = focus_confusion(
            run.logits[case.event.option_tokens], Roles.of(case.event)
        )
        row = values[(values["id"] == case.event.id) & (values["event"] == case.event.event)]
        assert row["label"].iloc[0] == "direct"
        assert row[["focus", "confusion"]].iloc[0].tolist() == pytest.approx(
            [float(focus), float(confusion)], abs=1e-4
        )
        assert row["share"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_steps_align_with_the_decision_s_own_coarse_step(model, cases):
    values = chain_values(model, cases)
    table = chain_trajectory(values, n_resamples=20)
    assert table.groupby("align")["step"].apply(list).to_dict() == {
        "step": [0, 1, 2, 3],
        "offset": [-2, -1, 0, 1, 2],
    }
    aligned = table[table["align"] == "offset"].set_index("step")
    assert aligned["n"].tolist() == [2, 5, 5, 5, 3]
    assert aligned["label"].tolist() == ["direct", "mixed", "coarse", "fine", "after"]
    fine = values[values["label"] == "fine"]
    for name in ("focus", "confusion"):
        assert aligned.loc[1, name] == pytest.approx(fine[name].mean())


def test_chains_without_labels_have_no_offset(model, event):
    values = chain_values(model, [case_of(event, stages=())])
    assert values["offset"].isna().all()
    assert set(chain_trajectory(values, n_resamples=5)["align"]) == {"step"}
    with pytest.raises(InputError, match="no chain has a place"):
        turning_points(values, axis="offset")


def values_of(curves: list[tuple[list[float], list[float]]], own: int = 2) -> pd.DataFrame:
    rows = [
        {
            "model": "m",
            "source": "given",
            "id": f"p{index}",
            "event": 0,
            "step": step,
            "share": step / (len(focus) - 1),
            "offset": step - own,
            "label": "other",
            "focus": focus[step],
            "confusion": confusion[step],
        }
        for index, (focus, confusion) in enumerate(curves)
        for step in range(len(focus))
    ]
    return pd.DataFrame(rows)


def test_turning_points_are_where_the_means_turn():
    """Chains of four steps and of two, which stand still between theirs."""
    values = values_of(
        [([0.2, 0.9, 1, 1, 1], [0.8, 0.8, 0.8, 0.1, 0])] * 12 + [([0.2, 0.9, 1], [0.8, 0.8, 0])] * 4
    )
    table = turning_points(values, n_resamples=50).set_index("what")
    # At a quarter the short chain is where it was: mean Focus 0.725. Half: 0.975.
    assert table["at"].tolist() == [0.5, 0.75, -0.25]
    assert table.loc["focus", ["start", "final"]].tolist() == pytest.approx([0.2, 1])
    assert (table["defined"] == 1).all()
    assert (table["low"] <= table["at"]).all() and (table["at"] <= table["high"]).all()
    assert (table["note"] == "").all()


def test_offsets_that_some_chain_lacks_are_no_places():
    values = values_of([([0.1, 0.2, 1, 1], [0.8, 0.8, 0.7, 0])])
    other = values_of([([0.1, 1, 1], [0.8, 0.7, 0])], own=1).assign(id="q")
    table = turning_points(pd.concat([values, other]), axis="offset", n_resamples=20)
    assert table["at"].tolist() == [0, 1, -1]
    assert table["n"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("confusion", "note"),
    [([0.01, 0.01, 0], "too low at the start to halve"), ([0.4, 0.4, 0.3], "never down to half")],
)
def test_what_cannot_turn_is_said(confusion, note):
    table = turning_points(values_of([([1, 1, 1], confusion)] * 16), n_resamples=20)
    table = table.set_index("what")
    assert table.loc["focus", "at"] == 0
    assert "first place" in table.loc["focus", "note"]
    assert table["at"].isna().tolist() == [False, True, True]
    assert note in table.loc["confusion", "note"]
    assert table["defined"].tolist() == [1, 0, 0]
    assert "undefined" in table.loc["focus_minus_confusion", "note"]


def test_tokens_of_the_own_steps_are_read_one_before(model, cases):
    values = token_values(model, cases)
    case = cases[1]
    rows = values[(values["id"] == case.event.id) & (values["event"] == case.event.event)]
    assert rows["place"].tolist() == [-2, -1, -3, -2, -1]
    assert rows["label"].tolist() == ["coarse"] * 2 + ["fine"] * 3
    # The last token of the coarse step, 55, follows 44.
    [run] = model.run([[*case.clean.question, *case.clean.tokens[:5]]])
    probabilities = run.logits.softmax(-1)[case.event.option_tokens]
    assert rows["mass"].iloc[1] == pytest.approx(float(probabilities.sum()), abs=1e-5)
    focus, _ = focus_confusion(probabilities.log(), Roles.of(case.event))
    assert rows["focus"].iloc[1] == pytest.approx(float(focus), abs=1e-4)
    assert rows["writes_option"].tolist() == [False, False, True, False, False]  # of 7, 8, 9
    table = token_trajectory(values, n_resamples=20)
    assert table[table["label"] == "coarse"].set_index("place")["n"].to_dict() == {
        -3: 3,  # the opening cue is no part of a step
        -2: 5,
        -1: 5,
    }


def test_bad_cases_are_refused(model, event):
    with pytest.raises(InputError, match="at least one case"):
        chain_values(model, [])
    with pytest.raises(InputError, match="options of several tokens"):
        token_values(model, [case_of(event, options=((1, 2),) * 7)])
    with pytest.raises(InputError, match="no chain has a step"):
        token_values(model, [case_of(event, stages=())])
    with pytest.raises(InputError, match="lacks column 'share'"):
        chain_trajectory(chain_values(model, [case_of(event)]).drop(columns="share"))
    with pytest.raises(InputError, match="axis is 'step'"):
        turning_points(chain_values(model, [case_of(event)]), axis="step")
    with pytest.raises(InputError, match="must rise"):
        Chain((1,), (2, 3), (1, 3))
    with pytest.raises(InputError, match="a stage each"):
        Chain((1,), (2, 3), (1, 2), ("coarse",))
