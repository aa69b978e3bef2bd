"""Files of predictions: what is written is read, other forms are, and damage is named."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.files import write_table
from workbench.labels.predictions import (
    FILE,
    is_sparse,
    read_predictions,
    write_predictions,
    write_sparse,
)

TABLE = pd.DataFrame(
    {
        "document": ["a", "b"],
        "labels": [[4, 0, 2], []],
        "scores": [[-0.1, -2.0, -2.0], []],
        "gold": [[0], [1, 3]],
    }
)
RECORD = {"task": "xmc:data", "split": "test", "n_labels": 5, "scores": "log", "model": "m"}


def test_a_folder_of_predictions_is_read(tmp_path):
    write_predictions(tmp_path / FILE, TABLE, RECORD)
    found = read_predictions(tmp_path)
    assert len(found) == 2 and found.longest == 3
    assert found.record == {key: RECORD[key] for key in RECORD if key != "model"}
    assert [row.tolist() for row in found.table["labels"]] == TABLE["labels"].tolist()
    assert [row.tolist() for row in found.table["gold"]] == TABLE["gold"].tolist()
    assert found.table["scores"][0].dtype == np.float32
    written = pd.read_parquet(tmp_path / FILE)
    assert {row.dtype for row in written["labels"]} == {np.dtype(np.int32)}


def test_what_retrieval_writes_is_read_with_places_as_scores(tmp_path):
    write_table(tmp_path / "retrieved.parquet", TABLE.drop(columns="scores"))
    (tmp_path / "retrieve.json").write_text('{"task": "xmc:d", "split": "train", "labels": 5}')
    found = read_predictions(tmp_path)
    assert found.record == {
        "n_labels": 5, "task": "xmc:d", "split": "train", "scores": "1 / place"
    }  # fmt: skip
    np.testing.assert_allclose(found.table["scores"][0], [1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("name", ["p.txt", "p.txt.gz", "p.npz"])
def test_sparse_files_keep_the_order(tmp_path, name):
    assert is_sparse(tmp_path / name) and not is_sparse(tmp_path / "p.csv")
    added = write_sparse(tmp_path / name, TABLE, 5)
    found = read_predictions(tmp_path / name)
    assert added == 3 and found.record == {"n_labels": 5} and "document" not in found.table
    assert [row.tolist() for row in found.table["labels"]] == [[4, 0, 2], []]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"document": ["a", "a"]}, "row 1: a document for the second time"),
        ({"document": ["a", None]}, "row 1: no document"),
        ({"labels": [[4, 0, 4], []]}, "row 0: a label stands twice in labels"),
        ({"labels": [[4, 0, -1], []]}, "row 0: labels has -1; labels count from 0"),
        ({"labels": [[4, 0], []]}, "row 0: 3 scores for 2 labels"),
        ({"labels": ["4", "0"]}, "row 0: labels is no list of numbers"),
        ({"labels": [[4, 0, 2], None]}, "row 1: labels is no list of numbers"),
        ({"labels": [[0.5, 0, 2], []]}, "row 0: labels is no list of numbers"),
        ({"scores": [[-2.0, -0.1, -2.0], []]}, "row 0: scores do not fall"),
        ({"scores": [[np.inf, 0, -2.0], []]}, "row 0: a score is not finite"),
        ({"gold": [[0], [1, 1]]}, "row 1: a label stands twice in gold"),
    ],
)
def test_damage_is_named_with_its_row(tmp_path, change, said):
    write_table(tmp_path / FILE, TABLE.assign(**change))
    with pytest.raises(InputError, match=said):
        read_predictions(tmp_path)


def test_what_is_no_predictions_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no predictions.parquet in this folder"):
        read_predictions(tmp_path)
    write_table(tmp_path / FILE, TABLE[["scores"]])
    with pytest.raises(InputError, match="no column 'document' and none 'labels'"):
        read_predictions(tmp_path)
    write_table(tmp_path / FILE, TABLE[:0])
    with pytest.raises(InputError, match="holds no document"):
        read_predictions(tmp_path)
    (tmp_path / FILE).write_text("no table")
    with pytest.raises(InputError, match="is no parquet file, or damaged"):
        read_predictions(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "none.parquet")
    write_predictions(tmp_path / FILE, TABLE, RECORD)
    (tmp_path / "predictions.json").write_text("[]")
    with pytest.raises(InputError, match="no object of task, split and n_labels"):
        read_predictions(tmp_path)
