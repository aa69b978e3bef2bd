import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.files import check_writable, make_folder, write_text, writing


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
