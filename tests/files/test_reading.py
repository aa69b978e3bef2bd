import json

import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.files import parse_json, read_json, read_parquet, read_text, write_table


def test_texts_are_read_with_and_without_a_byte_order_mark(tmp_path):
    for name, mark in (("plain", b""), ("marked", b"\xef\xbb\xbf")):
        path = tmp_path / name
        path.write_bytes(mark + '{"é": 1}\r\n'.encode())
        assert read_text(path) == '{"é": 1}\r\n'
        assert read_json(path) == {"é": 1}


def test_the_line_of_a_wrong_byte_is_named(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\r\ntwo\nd\xe9j\xe0\n")
    with pytest.raises(InputError, match=r"latin\.txt: line 3 is not UTF-8"):
        read_text(path)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none: cannot be read, No such file"):
        read_text(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1,\n "a": 2}', "key 'a' occurs twice"),
        ('{\n"a": }', "not JSON, line 2 column 6"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 19 + "]", "19 digits is too large"),
        (r'{"a": ["\ud83d b"]}', "holds half of a character"),
        ("[1e400]", "'1e400' is not finite"),
        ("[-Infinity]", "'-Infinity' is not finite"),
    ],
)
def test_json_that_says_no_one_thing(text, reason):
    with pytest.raises(InputError, match=reason):
        parse_json(text)


def test_values_of_json_are_kept():
    content = {"a": [1, -(2**58), 0.1, 1e-300, None, True, "x"]}
    assert parse_json(json.dumps(content)) == content


def test_damaged_tables_are_one_line(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, pd.DataFrame({"a": [[1, 2], [3]], "b": ["x", "y"]}))
    assert read_parquet(path)["a"].map(len).tolist() == [2, 1]
    whole = path.read_bytes()
    for damaged in (whole[:-9], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.parquet: is no parquet file, or damaged"):
            read_parquet(path)
    with pytest.raises(InputError, match=r"none\.parquet: cannot be read, No such file"):
        read_parquet(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="cannot be read, Is a directory"):
        read_parquet(tmp_path)
