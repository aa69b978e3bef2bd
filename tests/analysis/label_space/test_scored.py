"""Predictions against what is right: matched by document, cut by others, side by side."""

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.analysis.label_space.scored import open_scored
from workbench.errors import InputError
from workbench.labels.predictions import FILE, write_predictions, write_sparse

N_LABELS = 12


@pytest.fixture
def task(tmp_path):
    """Forty training and thirty test documents; a document's filter hides one label."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "Y.txt").write_text("".join(f"label {n}\n" for n in range(N_LABELS)))
    for stem, split, n in (("trn", "train", 40), ("tst", "test", 30)):
        rows = [rng.choice(N_LABELS, rng.integers(1, 4), replace=False) for _ in range(n)]
        (folder / f"{stem}_X.txt").write_text("".join(f"text {row}\n" for row in range(n)))
        lines = [" ".join(f"{label}:1" for label in row) for row in rows]
        (folder / f"{stem}_X_Y.txt").write_text("\n".join([f"{n} {N_LABELS}", *lines, ""]))
        (folder / f"filter_labels_{split}.txt").write_text("0 11\n")
    return f"xmc:{folder}"


def predicted(task, split, seed=0, length=6):
    """Random lists in which right labels come early; none of the ignored ones."""
    from workbench.labels.folders import open_corpus

    rng = np.random.default_rng(seed)
    rows = []
    for document in open_corpus(task).documents(split):
        score = rng.normal(size=N_LABELS)
        score[list(document.labels)] += 1.5
        score[list(document.ignored)] = -np.inf
        labels = np.argsort(-score)[:length]
        rows.append((document.id, labels, score[labels], list(document.labels)))
    return pd.DataFrame(rows, columns=["document", "labels", "scores", "gold"])


def written(folder, task, split, **settings):
    record = {"task": task, "split": split, "n_labels": N_LABELS, "scores": "normal"}
    write_predictions(folder / FILE, predicted(task, split, **settings), record)
    return folder


def value(table, measure, k=None, bucket="all"):
    chosen = (table["measure"] == measure) & (table["bucket"] == bucket)
    chosen &= table["k"].isna() if k is None else table["k"] == k
    [row] = table[chosen].to_dict("records")
    return row


def test_measures_are_of_the_split_that_the_predictions_name(task, tmp_path):
    folder = written(tmp_path / "out", task, "test")
    table = wb.score_predictions(folder, n_resamples=50)
    frame = predicted(task, "test")
    found = [set(g) & set(x[:3]) for g, x in zip(frame["gold"], frame["labels"], strict=True)]
    assert value(table, "p", 3)["value"] == pytest.approx(sum(map(len, found)) / 90)
    assert set(table["k"].dropna()) == {1, 3, 5} and value(table, "micro_auc")["value"] > 0.6
    assert {"seen", "head", "1 right"} <= set(table["bucket"])
    rule = value(table, "macro_f1")["rule"]
    assert rule.startswith("first 2 (training mean")


def test_sparse_rows_and_shuffled_documents_give_the_same(task, tmp_path):
    frame = predicted(task, "test")
    folder = written(tmp_path / "out", task, "test")
    expected = wb.score_predictions(folder, n_resamples=20)
    for name in ("p.npz", "p.txt"):
        assert write_sparse(tmp_path / name, frame, N_LABELS) > 0
        table = wb.score_predictions(tmp_path / name, task=task, n_resamples=20)
        pd.testing.assert_frame_equal(table, expected)
    mixed = frame.sample(frac=1, random_state=1)
    write_predictions(tmp_path / "mixed" / FILE, mixed, {"task": task, "split": "test"})
    table = wb.score_predictions(tmp_path / "mixed", n_resamples=20)
    pd.testing.assert_series_equal(table["value"], expected["value"])
    beside = wb.score_predictions(folder, against=tmp_path / "mixed", n_resamples=20)
    assert (beside["difference"].fillna(0) == 0).all() and (
        beside["difference_low"].dropna() == 0
    ).all()


def test_others_choose_the_threshold(task, tmp_path):
    test = written(tmp_path / "test", task, "test")
    train = written(tmp_path / "train", task, "train", seed=1)
    table = wb.score_predictions(test, threshold_from=train, n_resamples=20)
    rule = value(table, "micro_f1")["rule"]
    assert rule.startswith("score >= ") and rule.endswith("on 40 documents of train)")
    score = float(rule.split()[2])
    frame = predicted(task, "test")
    given = [x[s >= score - 1e-4] for x, s in zip(frame["labels"], frame["scores"], strict=True)]
    right = sum(len(set(g) & set(x)) for g, x in zip(frame["gold"], given, strict=True))
    f1 = 2 * right / (sum(map(len, given)) + sum(map(len, frame["gold"])))
    assert value(table, "micro_f1")["value"] == pytest.approx(f1)
    with pytest.raises(InputError, match="holds 30 of the documents that are measured"):
        wb.score_predictions(test, threshold_from=test)
    with pytest.raises(InputError, match="give threshold_from and against_threshold_from"):
        wb.score_predictions(test, against=test, threshold_from=train)
    write_predictions(train / FILE, predicted(task, "train"), {"split": "train", "scores": "o"})
    with pytest.raises(InputError, match="are of another kind"):
        wb.score_predictions(test, threshold_from=train)
    both = wb.score_predictions(
        test,
        against=test,
        threshold_from=written(tmp_path / "train", task, "train", seed=1),
        against_threshold_from=written(tmp_path / "again", task, "train", seed=2),
        n_resamples=20,
    )
    row = value(both, "macro_f1")
    assert row["rule"] != row["against_rule"] and row["against_rule"].startswith("score >= ")


def test_without_a_task_the_file_says_what_is_right(task, tmp_path):
    frame = predicted(task, "test")
    write_predictions(tmp_path / FILE, frame, {"n_labels": N_LABELS})
    table = wb.score_predictions(tmp_path / FILE, n_resamples=20)
    expected = wb.score_predictions(written(tmp_path / "out", task, "test"), n_resamples=20)
    assert value(table, "recall", 5)["value"] == pytest.approx(
        value(expected, "recall", 5)["value"]
    )
    assert value(table, "micro_f1")["rule"] == "whole lists" and "psp" not in set(table["measure"])
    write_predictions(tmp_path / FILE, frame.drop(columns="gold"), {})
    with pytest.raises(InputError, match="does not say what is right; give the task"):
        wb.score_predictions(tmp_path / FILE)


def test_part_of_a_split_is_measured_by_itself(task, tmp_path):
    frame = predicted(task, "test")
    write_predictions(tmp_path / "some" / FILE, frame[:20], {"task": task, "split": "test"})
    scored = open_scored(tmp_path / "some")
    assert len(scored.documents) == 20 and scored.rankings.n == 20
    whole = written(tmp_path / "out", task, "test")
    with pytest.raises(InputError, match="30 documents, of which 20 are among the 20 of"):
        wb.score_predictions(tmp_path / "some", against=whole)


def test_a_shortlist_is_compared_with_as_many_labels(task, tmp_path):
    long = written(tmp_path / "long", task, "test", length=9)
    short = written(tmp_path / "short", task, "test", length=3)
    table = wb.score_predictions(short, against=long, n_resamples=20)
    assert (table["difference"].fillna(0) == 0).all() and table["k"].max() == 3
    back = wb.score_predictions(long, against=short, n_resamples=20)
    assert (back["difference"].fillna(0) == 0).all()


def test_what_does_not_fit_is_refused(task, tmp_path):
    frame = predicted(task, "test")
    path = tmp_path / FILE

    def refused(table, said, record=None, **given):
        write_predictions(path, table, {"task": task, "split": "test", **(record or {})})
        with pytest.raises(InputError, match=said) as caught:
            wb.score_predictions(path, **given)
        assert "\n" not in str(caught.value)

    refused(frame, "of 13 labels, but set has 12", {"n_labels": 13})
    refused(frame, "10 of 30 documents are not in split test",
            None, task=shorter(task, tmp_path))  # fmt: skip
    refused(frame.assign(gold=[[0]] * 30), "documents other labels are right")
    refused(frame, "has no split 'val'", split="val")
    refused(frame, "no such folder; .* says so, give the task", {"task": "xmc:nowhere"})
    far = frame.assign(labels=[np.array([12, 1, 2, 3, 4, 5])] * 30)
    refused(far, "document 0: listed has label 12, but labels go from 0 to 11")
    (tmp_path / "groups.tsv").write_text("nobody\tsource\n")
    refused(frame, "groups.tsv: names none of the 30 documents", groups=tmp_path / "groups.tsv")
    write_sparse(tmp_path / "p.txt", frame[:9], N_LABELS)
    with pytest.raises(InputError, match="9 rows, but split test of set has 30 documents"):
        wb.score_predictions(tmp_path / "p.txt", task=task)
    with pytest.raises(InputError, match="give the task"):
        wb.score_predictions(tmp_path / "p.txt")


def shorter(task, tmp_path):
    """The same set without its last ten test documents."""
    import shutil
    from pathlib import Path

    folder = tmp_path / "shorter"
    shutil.copytree(Path(task.removeprefix("xmc:")), folder)
    for name in ("tst_X.txt", "tst_X_Y.txt"):
        lines = (folder / name).read_text().splitlines()[:-10]
        lines[0] = lines[0].replace("30 ", "20 ")
        (folder / name).write_text("\n".join([*lines, ""]))
    return f"xmc:{folder}"
