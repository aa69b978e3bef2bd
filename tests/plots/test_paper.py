import numpy as np
import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.plots import paper


def scores() -> pd.DataFrame:
    table = pd.DataFrame({"layer": np.arange(20) // 4, "head": np.arange(20) % 4})
    for number, name in enumerate(paper.CHAIN_SCORES):
        table[name] = (np.arange(20) * (number + 1)) % 20 / 20.0
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.1, table[name] + 0.1
        table[f"{name}_q"] = np.where(table[name] > 0.8, 0.01, 0.5)
    return table


def test_the_first_heads_of_each_score_and_which_beat_their_null():
    figure = paper.heads_ranked(scores())
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert len(bars) == 4 and all(len(trace.x) == paper.MOST_HEADS for trace in bars)
    assert bars[0].x[0] == "4-3" and list(bars[0].y) == sorted(bars[0].y, reverse=True)
    assert bars[0].marker.color[0] != "white" and bars[0].marker.color[-1] == "white"


def test_scores_that_no_chain_has_are_left_out():
    table = scores().assign(refine_chain=np.nan)
    lengths = [len(trace.x) for trace in paper.heads_ranked(table).data]
    assert lengths == [16, 0, 16, 16]


def test_attention_is_coloured_by_kind_and_text_is_no_markup():
    kinds = ["evidence", "rest", "other label"]
    table = pd.DataFrame({"position": range(3), "text": [" <a>", "b", "c"], "kind": kinds})
    table = table.assign(layer=0, head=1, weight=[0.5, 0.3, 0.1])
    figure = paper.early_attention(table)
    assert [trace.name for trace in figure.data if len(trace.x)] == [
        "evidence", "other label", "rest",
    ]  # fmt: skip
    assert "<a>" not in [note.text for note in figure.layout.annotations]


def along() -> pd.DataFrame:
    rows = [
        {"model": model, "quantity": quantity, "t": t, "value": t, "low": t - 0.1, "high": t + 0.1}
        for model in ("teacher", "student one", "student two")
        for quantity in paper.ALONG
        for t in (0.0, 0.5, 1.0)
    ]
    return pd.DataFrame(rows)


def test_any_number_of_models_and_what_was_reported():
    reported = pd.DataFrame({"model": ["r"] * 2, "t": [0.0, 1.0], "value": [0.2, 0.9]})
    reported = reported.assign(quantity="focus_text")
    figure = paper.trajectories(along(), reported)
    names = [trace.name for trace in figure.data if trace.name]
    assert names.count("teacher") == names.count("student two") == len(paper.ALONG)
    assert names.count("paper: r") == 1
    only = paper.trajectories(along().query("quantity == 'focus_text'"))
    assert len([trace for trace in only.data if trace.name]) == 3


def test_stages_stand_in_order():
    rows = [
        {"layer": 1, "head": head, "stage": stage, "place": place, "quantity": quantity}
        | {"value": place / 10, "low": 0.0, "high": 1.0, "n": 3}
        for head in (0, 2)
        for place, stage in [(1, "11–20"), (0, "1–10")]
        for quantity in paper.STAGED
    ]
    figure = paper.stages(pd.DataFrame(rows))
    assert list(figure.layout.xaxis.categoryarray) == ["1–10", "11–20"]
    assert [trace.name for trace in figure.data[:2]] == ["1-0", "1-2"]
    assert list(figure.data[0].x) == ["1–10", "11–20"]


@pytest.mark.parametrize("draw", [paper.heads_ranked, paper.early_attention, paper.trajectories])
def test_tables_that_cannot_be_drawn(draw):
    assert "no " in draw(pd.DataFrame()).layout.annotations[0].text
    with pytest.raises(InputError, match="is missing"):
        draw(pd.DataFrame({"x": [1]}))
