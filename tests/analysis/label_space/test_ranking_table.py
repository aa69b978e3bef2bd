"""The table of ranking measures: its values, buckets and intervals."""

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.analysis.label_space.auc import macro_auc, micro_auc
from workbench.analysis.label_space.frequency import inverse_propensities
from workbench.analysis.label_space.label_sets import Cut
from workbench.analysis.label_space.ranked import Rankings
from workbench.analysis.label_space.ranking import ndcg_at, psp_at, recall_at
from workbench.analysis.label_space.ranking_table import (
    COLUMNS,
    PAIRED,
    evaluate_rankings,
    ranking_table,
)
from workbench.analysis.statistics import bootstrap, ratio_of_means
from workbench.errors import InputError

COUNTS = [200, 100, 99, 6, 5, 0]
"""Labels 0 and 1 are head, 2 and 3 torso, 4 and 5 tail."""


def some(n=60, seed=0):
    rng = np.random.default_rng(seed)
    gold = [rng.choice(6, rng.integers(0, 4), replace=False).tolist() for _ in range(n)]
    listed = [rng.permutation(6)[: rng.integers(0, 6)].tolist() for _ in range(n)]
    return gold, listed


def table_of(gold, listed, **settings):
    settings = {"train_counts": COUNTS, "n_train": 1000, "n_resamples": 50, **settings}
    return evaluate_rankings(gold, listed, **settings)


def value(table, measure, k, bucket="all"):
    chosen = (table["measure"] == measure) & (table["bucket"] == bucket)
    chosen &= table["k"].isna() if k is None else table["k"] == k
    [row] = table[chosen].to_dict("records")
    return row


def test_every_measure_has_its_row():
    table = table_of(*some(), ks=(1, 5), recall_ks=(3,))
    assert list(table.columns) == COLUMNS and not table["value"].isna().any()
    at_k = {(m, k) for m in ("p", "ndcg", "psp", "psndcg") for k in (1, 5)} | {("recall", 3)}
    lists = {"recall", "map", "r_precision", "micro_f1", "macro_f1", "micro_auc", "macro_auc"}
    rows = set(zip(table["measure"], table["k"].fillna(0), strict=True))
    assert rows == at_k | {(measure, 0) for measure in lists}
    buckets = table["bucket"].value_counts()
    assert (buckets == 16).all() and set(buckets.index) == {
        "all", "head", "torso", "tail", "seen", "unseen", "1 right", "2-3 right"
    }  # fmt: skip
    assert not {"psp", "psndcg"} & set(table_of(*some(), n_train=None)["measure"])
    plain = evaluate_rankings(*some(), n_resamples=5)
    assert not {"head", "seen"} & set(plain["bucket"])
    assert not {"psp", "micro_auc"} & set(plain["measure"])
    assert "micro_auc" in set(evaluate_rankings(*some(), n_labels=6, n_resamples=5)["measure"])


def test_buckets_are_of_labels_and_of_documents():
    gold, listed = some()
    table = table_of(gold, listed, ks=(2,))
    assert value(table, "recall", 2, "unseen")["n"] == sum(5 in row for row in gold)
    few = [n for n, row in enumerate(gold) if len(row) == 1]
    alone = table_of([gold[n] for n in few], [listed[n] for n in few], ks=(2,))
    for measure, k in (
        ("p", 2),
        ("psp", 2),
        ("map", None),
        ("micro_auc", None),
        ("macro_f1", None),
    ):
        row = value(table, measure, k, "1 right")
        assert row["value"] == pytest.approx(value(alone, measure, k)["value"]), measure
        assert row["n"] == len(few)


def test_lists_are_cut_for_f1_alone_and_the_table_says_how():
    table = table_of([[0, 1], [2]], [[0, 3, 1], [4, 2]], cut=Cut("first 1", places=1))
    assert value(table, "micro_f1", None)["value"] == pytest.approx(2 / 5)
    assert value(table, "recall", None)["value"] == 1
    assert set(table.loc[table["rule"] == "first 1", "measure"]) == {"micro_f1", "macro_f1"}
    assert set(table["rule"]) == {"first 1", ""}


def test_differences_are_of_the_same_documents():
    gold, listed = some(200)
    other = [list(reversed(row)) for row in listed]
    ranked, against = (Rankings.of(gold, rows, n_labels=6) for rows in (listed, other))
    whole = Cut("whole lists")
    settings = {"ks": (1, 3), "recall_ks": (2,), "n_resamples": 400}
    table = ranking_table(ranked, against=(against, whole), **settings)
    assert list(table.columns) == [*COLUMNS, *PAIRED]
    alone = ranking_table(ranked, **settings)
    pd.testing.assert_frame_equal(table[COLUMNS], alone)
    beside = ranking_table(against, **settings)
    np.testing.assert_allclose(table["against"], beside["value"])
    np.testing.assert_allclose(table["difference"], table["value"] - table["against"])
    # Whole lists hold the same labels in both.
    for measure in ("recall", "micro_f1"):
        row = value(table, measure, None)
        assert row["difference"] == row["difference_low"] == row["difference_high"] == 0
    row = value(table, "recall", 2)
    paired = recall_at(ranked, 2).each - recall_at(against, 2).each
    drawn = bootstrap(
        ratio_of_means,
        torch.from_numpy(np.nan_to_num(paired)),
        torch.from_numpy((~np.isnan(paired)).astype(float)),
        prompt_ids=[str(n) for n in range(200)],
        n_resamples=4000,
    )
    assert row["difference"] == pytest.approx(float(drawn.estimate))
    ends = [row["difference_low"], row["difference_high"]]
    assert ends == pytest.approx([*map(float, drawn[1:])], abs=0.012)


def test_auc_stands_in_the_table():
    gold, listed = some(80)
    table = table_of(gold, listed)
    ranked = Rankings.of(gold, listed, n_labels=6)
    row = value(table, "micro_auc", None)
    assert row["value"] == pytest.approx(micro_auc(ranked).value)
    assert row["low"] < row["value"] < row["high"]
    row = value(table, "macro_auc", None)
    assert row["value"] == pytest.approx(macro_auc(ranked)) and np.isnan(row["low"])


def test_precision_of_the_buckets_adds_up():
    table = table_of(*some())
    for k in (1, 3, 5):
        parts = [value(table, "p", k, bucket)["value"] for bucket in ("head", "torso", "tail")]
        assert sum(parts) == pytest.approx(value(table, "p", k)["value"])


def test_a_bucket_by_hand():
    # Head: label 0, found first. Tail: 4, found third, 5 not; 4 of document 1 not. Torso: only 2.
    table = table_of([[0, 4, 5], [4], [2]], [[0, 3, 4], [0], [2]], ks=(1, 3))
    assert value(table, "recall", 1, "head")["value"] == 1
    assert value(table, "recall", 1, "head")["n"] == 1
    assert value(table, "recall", 3, "tail")["value"] == pytest.approx((1 / 2 + 0) / 2)
    assert value(table, "p", 3, "tail")["value"] == pytest.approx(1 / 9)
    assert value(table, "p", 3, "tail")["n"] == 3
    # Listed and wrong: 0 in head, 3 in torso.
    assert value(table, "micro_f1", None, "head")["value"] == pytest.approx(2 / 3)
    assert value(table, "micro_f1", None, "torso")["value"] == pytest.approx(2 / 3)
    assert value(table, "macro_f1", None, "torso")["value"] == pytest.approx((1 + 0) / 2)
    assert value(table, "micro_f1", None, "tail")["value"] == pytest.approx(2 / 4)
    inverse = inverse_propensities(COUNTS, 1000)
    best = inverse[5] + inverse[4] + inverse[4]  # document 0 has both
    assert value(table, "psp", 3, "tail")["value"] == pytest.approx(inverse[4] / best)


def test_intervals_are_those_of_the_bootstrap_over_documents():
    gold, listed = some(400)
    table = table_of(gold, listed, n_resamples=4000)
    ranked = Rankings.of(gold, listed)
    ids = [str(n) for n in range(400)]
    inverse = inverse_propensities(COUNTS, 1000)
    psp = psp_at(ranked, ranked.best(inverse), 3, inverse)
    for name, terms in (("ndcg", ndcg_at(ranked, 3)), ("psp", psp)):
        arrays = [torch.from_numpy(x) for x in terms]
        expected = bootstrap(ratio_of_means, *arrays, prompt_ids=ids, n_resamples=4000)
        row = value(table, name, 3)
        assert row["value"] == pytest.approx(float(expected.estimate))
        assert [row["low"], row["high"]] == pytest.approx([*map(float, expected[1:])], abs=3e-3)


def test_documents_of_a_group_are_drawn_together():
    gold, listed = some(40)
    pair = np.repeat(np.arange(40), 2)
    doubled = Rankings.of(*([rows[at] for at in pair] for rows in (gold, listed)))

    def measured(ranked, groups=None):
        table = ranking_table(ranked, ks=[1, 3], groups=groups, n_resamples=300)
        return table[(table["bucket"] == "all") & table["measure"].isin(["p", "recall", "map"])]

    ends = ["value", "low", "high"]
    own, together, apart = (
        measured(*given)[ends]
        for given in ((Rankings.of(gold, listed),), (doubled, pair), (doubled,))
    )
    assert np.allclose(together, own)
    assert (together["high"] - together["low"] > 1.2 * (apart["high"] - apart["low"])).all()
    few = measured(doubled, np.repeat(np.arange(8), 10))
    assert few["low"].isna().all() and few["value"].notna().all()
    with pytest.raises(InputError, match="3 groups are given for 80 documents"):
        measured(doubled, np.arange(3))


def test_the_seed_decides_and_slices_of_draws_do_not(monkeypatch):
    gold, listed = some()
    first = table_of(gold, listed, seed=1)
    pd.testing.assert_frame_equal(first, table_of(gold, listed, seed=1))
    assert not first["low"].equals(table_of(gold, listed, seed=2)["low"])
    monkeypatch.setattr("workbench.analysis.label_space.ranking_table.NUMBERS_AT_ONCE", 7 * 60)
    sliced = table_of(gold, listed, seed=1)
    pd.testing.assert_series_equal(first["value"], sliced["value"])
    # 50 resamples in slices of 7 are still 50 different ones.
    assert (sliced["high"] - sliced["low"]).sum() == pytest.approx(
        (first["high"] - first["low"]).sum(), rel=0.2
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ks": ()}, "ks are"),
        ({"ks": (0, 1)}, "ks are"),
        ({"n_resamples": 0}, "n_resamples is 0"),
        ({"train_counts": None}, "n_train is given without train_counts"),
        ({"train_counts": [1, 2]}, "but labels go from 0 to 1"),
        ({"ignored": [[]]}, "1 rows of ignored labels for 60 documents"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        table_of(*some(), **settings)


def test_no_documents_are_refused():
    with pytest.raises(InputError, match="no documents"):
        evaluate_rankings([], [])
