"""Files of other people, gzipped or plain, read line by line in little memory.

All readers go through `open_text`, so that a byte-order mark, bytes that are not UTF-8, a damaged
gzip and a line without end are met in one place, which knows the line. Where old files are to be
read as they are, `text_lines` takes the lines that are not UTF-8 for latin-1, and counts them.
"""

import codecs
import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from workbench.errors import InputError
from workbench.files import reading

logger = logging.getLogger(__name__)

LONGEST_LINE = 1 << 26
"""Bytes between two line breaks; a small gzip may unzip to a line that fills the memory."""
LONGEST_LABEL = 10_000
"""Characters of a label; a longer one fits no prompt, and decoding would go on for as long."""
_CHUNK = 1 << 18
_GZIP = b"\x1f\x8b"


def bad_line(path: Path, line: int, what: str) -> InputError:
    """The error about one line of a file; lines count from 1."""
    return InputError(f"{path}: line {line}: {what}")


_WHOLE = re.compile(r"([0-9]{1,18})(?:\.0*)?")


def whole_number(text: str) -> int | None:
    """A whole number from 0, be it written as tables with a gap write it (`20000001.0`)."""
    found = _WHOLE.fullmatch(text.strip())
    return int(found[1]) if found else None


@contextmanager
def open_text(path: Path, *, any_bytes: bool = False) -> Iterator[BinaryIO]:
    """The bytes of a UTF-8 text, without a byte-order mark, unzipped where the name ends in `.gz`.

    With `any_bytes` they need not be UTF-8.

    Raises:
        InputError: the file cannot be opened; or, while it is read, with the line: a broken gzip,
            bytes that are not UTF-8, more than `LONGEST_LINE` of them without a line break.
    """
    with reading(path), path.open("rb") as raw:
        source = _Unzipped(raw, path) if path.suffix == ".gz" else raw
        yield cast(BinaryIO, io.BufferedReader(_Checked(source, path, any_bytes), _CHUNK))


def text_lines(path: Path, said: Counter[str], *, every: bool = False) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines without their ends, one at a time in memory.

    Lines that are not UTF-8 are read as latin-1, as older files of public data sets are or have a
    few of, and `said` counts them.

    Empty lines at the end are left out. Others are not: line numbers may be label numbers. With
    `every` those at the end come, too, where the last rows of a table may be empty.

    Raises:
        InputError: as `open_text`; or, with the line, bytes of zero, as UTF-16 has them.
    """
    empty = 0
    with open_text(path, any_bytes=True) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                empty += 1
                continue
            yield from ((before, "") for before in range(number - empty, number))
            empty = 0
            if b"\0" in line:
                raise bad_line(path, number, "holds bytes of zero; save the file as UTF-8")
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text = line.decode("latin-1")
                said[f"lines of {path.name} that are not UTF-8, read as latin-1"] += 1
            yield number, text.rstrip("\r\n")
        if every:
            yield from ((number - behind, "") for behind in reversed(range(empty)))


class _Checked(io.RawIOBase):
    """Passes on the bytes of a UTF-8 text, and refuses what is none with its line."""

    def __init__(self, source: Any, path: Path, any_bytes: bool) -> None:
        self._source, self._path = source, path
        self._decoder = codecs.getincrementaldecoder("latin-1" if any_bytes else "utf-8")()
        self._line, self._since_break = 1, 0
        self._is_start = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._source.read(len(buffer))
        except (OSError, EOFError, zlib.error):
            what = "the gzip is broken or cut off here; fetch the file again"
            raise bad_line(self._path, self._line, what) from None
        if self._is_start:
            self._is_start = False
            while 0 < len(chunk) < len(codecs.BOM_UTF8) and (more := self._source.read(1)):
                chunk += more
            if chunk.startswith(codecs.BOM_UTF8):
                chunk = chunk.removeprefix(codecs.BOM_UTF8) or self._source.read(len(buffer))
        self._check(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _check(self, chunk: bytes) -> None:
        try:
            self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line = self._line + error.object[: error.start].count(b"\n")
            raise bad_line(self._path, line, "not UTF-8; save the file as UTF-8") from None
        breaks = chunk.count(b"\n")
        if breaks:
            self._line += breaks
            self._since_break = len(chunk) - chunk.rindex(b"\n") - 1
        else:
            self._since_break += len(chunk)
        if self._since_break > LONGEST_LINE:
            what = f"has more than {LONGEST_LINE:,} bytes; is this a text with line breaks?"
            raise bad_line(self._path, self._line, what)


class _Unzipped:
    """The contents of a gzip file; zeros or other bytes behind its last member are left out.

    Tapes and downloads add such bytes, and gzip(1) passes over them with a warning, too; Python's
    own module refuses the file there.
    """

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        self._raw, self._path = raw, path
        self._member: Any = None
        self._waiting = b""
        self._is_over = False

    def read(self, size: int) -> bytes:
        while not self._is_over:
            if self._member is None or self._member.eof:
                self._begin_member()
                continue
            data = self._member.decompress(self._waiting or self._raw.read(_CHUNK), size)
            self._waiting = self._member.unconsumed_tail or self._member.unused_data
            if data:
                return data
            if not self._waiting and not self._member.eof:
                self._waiting = self._raw.read(_CHUNK)
                if not self._waiting:
                    raise EOFError
        return b""

    def _begin_member(self) -> None:
        is_first = self._member is None
        while True:
            if not is_first:
                self._waiting = self._waiting.lstrip(b"\0")
            if len(self._waiting) >= len(_GZIP) or not (more := self._raw.read(_CHUNK)):
                break
            self._waiting += more
        if self._waiting.startswith(_GZIP):
            self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        elif is_first:
            raise EOFError
        else:
            if self._waiting:
                logger.warning("%s: bytes after the end of the gzip are left out", self._path)
            self._is_over = True
