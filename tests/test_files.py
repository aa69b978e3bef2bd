import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.files import (
    alone,
    check_writable,
    make_folder,
    parse_json,
    read_json,
    read_parquet,
    read_text,
    write_table,
    write_text,
    writing,
)


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


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_and_folders_are_their_owner_s(tmp_path):
    make_folder(tmp_path / "run", private=True)
    write_text(tmp_path / "run" / "prompts.jsonl", "a", private=True)
    write_text(tmp_path / "shared.json", "a")
    assert mode(tmp_path / "run") == 0o700
    assert mode(tmp_path / "run" / "prompts.jsonl") == 0o600
    umask = os.umask(0)
    os.umask(umask)
    assert mode(tmp_path / "shared.json") == 0o666 & ~umask


def test_what_a_killed_write_leaves_is_private(tmp_path):
    kill = (
        "import os, sys; from pathlib import Path; from workbench.files import replacing\n"
        "with replacing(Path(sys.argv[1]), private=True) as beside:\n"
        "    beside.write_text('note'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", kill, str(tmp_path / "p.jsonl")], check=False)
    (left,) = tmp_path.iterdir()
    assert (left.read_text(), mode(left)) == ("note", 0o600)


def test_a_write_that_fails_changes_nothing_and_is_one_line(tmp_path):
    path = tmp_path / "file"
    write_text(path, "before")
    with pytest.raises(InputError, match="half of a character"):
        write_text(path, "\ud800")
    assert [item.read_text() for item in tmp_path.iterdir()] == ["before"]
    with pytest.raises(InputError, match=r"cannot be written, Not a directory|File exists"):
        write_text(path / "below", "text")
    with pytest.raises(InputError, match="cannot be written, File name too long"):
        write_text(tmp_path / ("x" * 300), "text")
    with pytest.raises(InputError, match=r"cannot be written, .*directory"):
        write_text(tmp_path, "text")


def test_a_full_disk_is_one_line():
    full = Path("/dev/full")
    reason = "/dev/full: cannot be written, No space left on device"
    with pytest.raises(InputError, match=reason), writing(full), full.open("w") as file:
        file.write("x")


def test_pipes_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="pipe: cannot be written, it is no file"):
        write_text(tmp_path / "pipe", "x")
    for name in ("pipe", "folder"):
        with pytest.raises(InputError, match=f"{name}: cannot be written, it is no file"):
            check_writable(tmp_path / name, file=True)
    assert (tmp_path / "pipe").is_fifo()
    check_writable(tmp_path / "folder")


def test_the_longest_names_can_be_written(tmp_path):
    write_text(tmp_path / ("x" * 255), "text")
    write_text(tmp_path / "latin-\udce9", "text")  # a name that is not UTF-8


def test_one_process_holds_a_lock(tmp_path):
    lock = tmp_path / "new" / ".lock"
    take = (
        "import sys; from pathlib import Path; from workbench.files import alone\n"
        "with alone(Path(sys.argv[1]), 'busy'): pass"
    )
    command = [sys.executable, "-c", take, str(lock)]
    with alone(lock, "busy"):
        there = subprocess.run(command, capture_output=True, text=True, check=False)
        assert there.returncode and "InputError: busy" in there.stderr
    assert subprocess.run(command, check=False).returncode == 0


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
