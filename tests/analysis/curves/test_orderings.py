from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.tiny_model import HEADS

from workbench.analysis.curves import orderings as module
from workbench.analysis.curves.faithfulness import plan_curves
from workbench.analysis.curves.orderings import COLUMNS, order_scores, rank_heads, read_orders
from workbench.errors import InputError
from workbench.phases import OF_READOUT
from workbench.studies.planted.models import plant


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """CoarseScore falls from head to head, RefineScore rises from −6 to 5."""
    layer, head = np.array(HEADS).T
    count = np.arange(12.0)
    return pd.DataFrame(
        {"layer": layer, "head": head, "coarse": -count, "refine": count - 6}
    ).assign(coarse_attribution_far=np.where(count == 3, -9.0, count), output_norm=count % 4)


@pytest.fixture(scope="module")
def patching() -> pd.DataFrame:
    """Three heads were patched; other halves and positions say the opposite."""
    effects = {(2, 0): (0.2, 0.9), (1, 1): (0.5, 0.1), (0, 3): (0.4, 0.3)}
    rows = []
    for (layer, head), pair in effects.items():
        for measure, effect in zip(("coarse_restore", "refine_reduce"), pair, strict=True):
            rows.append((layer, head, "span", measure, "choose", effect))
            rows.append((layer, head, "span", measure, "verify", -effect))
            rows.append((layer, head, "decision", measure, "choose", -effect))
    return pd.DataFrame(rows, columns=["layer", "head", "positions", "measure", "half", "effect"])


@pytest.fixture(scope="module")
def table(model, prompts, base, scores, patching) -> pd.DataFrame:
    return order_scores(
        model, prompts, base, scores, patching, [(2, 0), (1, 1)], n_random=2, n_events=2
    )


def test_pool_and_effect_put_measured_heads_first(table):
    orders = read_orders(table)
    by_score = {"focus": HEADS, "confusion": HEADS[::-1]}
    first = {
        ("pool", "focus"): [(1, 1), (2, 0)],
        ("pool", "confusion"): [(2, 0), (1, 1)],
        ("effect", "focus"): [(1, 1), (0, 3), (2, 0)],
        ("effect", "confusion"): [(2, 0), (0, 3), (1, 1)],
    }
    for (name, readout), front in first.items():
        rest = [head for head in by_score[readout] if head not in front]
        assert orders[name][readout] == front + rest
    for readout, order in by_score.items():
        assert orders["score"][readout] == order


def test_attribution_goes_by_size_and_norm_breaks_ties_by_layer(table):
    orders = read_orders(table)
    assert orders["attribution"]["focus"][:4] == [HEADS[i] for i in (11, 10, 3, 9)]
    assert orders["attribution"]["confusion"][:4] == [HEADS[i] for i in (0, 1, 11, 2)]
    norm = orders["output_norm"]["focus"]
    assert norm[:4] == [(0, 3), (1, 3), (2, 3), (0, 2)]


def test_every_order_holds_every_head_once(model, table):
    assert list(table.columns) == COLUMNS
    orders = read_orders(table)
    plan_curves(model, orders)  # refuses anything else
    names = ["pool", "effect", "score", "attribution", "output_norm", "qr_head"]
    assert list(orders) == [*names, "random 1", "random 2"]
    assert orders["random 1"]["focus"] == orders["random 1"]["confusion"]
    assert orders["random 1"]["focus"] != orders["random 2"]["focus"]
    part = table[(table["name"] == "qr_head") & (table["readout"] == "focus")]
    assert part.sort_values("rank")["value"].is_monotonic_decreasing


def test_only_the_choosing_half_is_looked_at(model, prompts, base, scores, patching, table):
    """Roles of verifying prompts do not matter, the draws depend on the seed alone."""
    seen = []
    options: dict[str, Any] = {"n_events": 2, "progress": lambda *done: seen.append(done)}
    tables, chosen = (base, scores, patching), prompts.subset(["p0", "p1"])
    orders = read_orders(order_scores(model, chosen, *tables, [(2, 0), (1, 1)], **options))
    assert orders == read_orders(table)
    whole = 2 * 2 + 2 * 3 + 2  # two for each of filter heads and for retrieval heads
    assert seen == [(done, whole) for done in range(5, 11)]  # which a random model does not have
    options = {"n_events": 1, "n_random": 1, "seed": 1}
    other = read_orders(order_scores(model, prompts, *tables, [], **options))
    assert other["random 1"] != orders["random 1"]
    assert other["pool"] == other["score"]  # no pool


def test_a_ranking_that_is_added_is_made_for_each_readout(model, prompts, monkeypatch):
    """By readout on the first events of it; once, on all, where it does not differ."""
    asked = []

    def scores(model, events, readout, progress, spread):
        asked.append((readout, len(events)))
        return torch.full((3, 4), float(len(events)))

    rivals = {"mine": module.Rival(scores, few=True), "one": module.Rival(scores, by_readout=False)}
    monkeypatch.setattr(module, "RIVALS", rivals)
    one, two, *_ = prompts.events
    events = {"focus": [one, two], "confusion": []}
    found = module.rival_scores(model, events, n_events=1)
    assert asked == [("focus", 1), (None, 2)]
    assert set(found["mine"]) == {"focus"} and set(found["one"]) == {"focus", "confusion"}


def test_a_ranking_whose_definition_cannot_be_met_is_left_out_and_said(model, prompts):
    """A random model answers nothing rightly, and a letter is no copy."""
    said = []
    found = module.rival_scores(model, {"focus": prompts.events}, say=said.append)
    assert list(found) == ["qr_head"]
    left = ["ranking filter_head left out: filter heads: no two of 5 events"]
    left += ["ranking retrieval_head left out: retrieval heads: in none of 5 events"]
    assert len(said) == 2 and all(map(str.startswith, said, left))


def test_planted_heads_come_first_in_every_ranking():
    planted = plant(1, kind="query", n_prompts=8)
    events = dict.fromkeys(OF_READOUT, planted.prompts.events)
    found = module.rival_scores(planted.model, events)
    assert list(found) == ["filter_head", "qr_head", "retrieval_head"]
    for by in found.values():
        assert divmod(int(by["confusion"].argmax()), 4) == planted.place["label_finder"]


def test_without_events_for_a_readout_there_is_no_order_that_differs_by_it(
    model, prompts, base, scores, patching
):
    tables = base.assign(counts_near=False), scores, patching
    orders = read_orders(order_scores(model, prompts, *tables, [], n_events=1))
    assert list(orders["qr_head"]) == ["focus"]
    assert list(orders["pool"]) == ["focus", "confusion"]


def test_bad_tables_are_named(model, prompts, base, scores, patching):
    def order(scores=scores, patching=patching, pooled=(), base=base):
        return order_scores(model, prompts, base, scores, patching, list(pooled))

    with pytest.raises(InputError, match="scores table lacks column 'refine'"):
        order(scores=scores.drop(columns="refine"))
    with pytest.raises(InputError, match="11 rows; it must have one for each of the model's 12"):
        order(scores=scores.iloc[1:])
    with pytest.raises(InputError, match="patching table lacks column 'half'"):
        order(patching=patching.drop(columns="half"))
    with pytest.raises(InputError, match="no 'coarse_restore'"):
        order(pooled=[(0, 0)])
    with pytest.raises(InputError, match="layer 3, head 0"):
        order(pooled=[(3, 0)])
    with pytest.raises(InputError, match="no event of the selection half"):
        order(base=base.assign(half="verify"))


def test_heads_are_ranked_by_a_column_ties_by_place_and_unknown_last():
    table = pd.DataFrame({"layer": [1, 0, 0, 1], "head": [0, 1, 0, 1]})
    table["coarse_chain"] = [0.5, 0.5, np.nan, 2.0]
    assert rank_heads(table, "coarse_chain") == [(1, 1), (0, 1), (1, 0), (0, 0)]
    with pytest.raises(InputError, match="lacks column 'refine_chain'"):
        rank_heads(table, "refine_chain")
    with pytest.raises(InputError, match="two rows of one head"):
        rank_heads(pd.concat([table, table]), "coarse_chain")
