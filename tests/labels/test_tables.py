import gzip

import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.labels.tables import read_table

TABLE = pd.DataFrame({"id": ["007", "x"], "text": ["line\nbreak, comma", ""]})


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "jsonl", "parquet", "feather"])
def test_every_form_gives_the_same_table(tmp_path, form):
    path = tmp_path / f"table.{form}"
    if form == "jsonl":
        path.write_text(TABLE.to_json(orient="records", lines=True))
    elif form == "feather":
        TABLE.to_feather(path)
    elif form == "parquet":
        TABLE.to_parquet(path)
    else:
        written = TABLE.to_csv(index=False, sep="\t" if form == "tsv" else ",")
        content = ("\ufeff" + written).encode()
        path.write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    assert read_table(path).to_dict("records") == TABLE.to_dict("records")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "", "a csv, tsv, jsonl, parquet or feather file of a table is needed"),
        ("a.csv", None, "no such file"),
        ("a.csv", "", "cannot be read as csv"),
        ("a.csv", "id,text\n1,secret, x\n2,y\n", "row 0 .from 0. has 3 cells, the header 2"),
        ("a.csv", "id,text\n1,x\n2,secret, x\n", "cells that hold ',' need quotes"),
        ("a.csv", "id,text\n1,x\n\nsecret\n", "row 1 .from 0. has 1 cells, the header 2"),
        ("a.csv", 'id,text\n1,"secret\n2,x\n', "cannot be read as csv"),
        ("a.parquet", "not parquet", "cannot be read as parquet"),
        ("a.jsonl", '{"id": 1}\n[2]\n', "line 2: not a JSON object"),
        ("a.jsonl", '{"id": 1\n', "a.jsonl: line 1: not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as refused:
        read_table(tmp_path / name)
    assert "secret" not in str(refused.value)


def test_a_csv_file_of_a_spreadsheet(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffid; text \r\n007;"one; two, three"\r\nx;\r\n', newline="")
    rows = [{"id": "007", "text": "one; two, three"}, {"id": "x", "text": ""}]
    assert read_table(path).to_dict("records") == rows
