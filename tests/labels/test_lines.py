import codecs
import gzip
import tracemalloc
from collections import Counter

import pytest

from workbench.errors import InputError
from workbench.labels.corpus import find_file, need_file
from workbench.labels.lines import LONGEST_LINE, open_text, text_lines, whole_number


def lines(path, **given) -> list[tuple[int, str]]:
    return list(text_lines(path, Counter(), **given))


def refused(path) -> str:
    with pytest.raises(InputError) as caught, open_text(path) as stream:
        for _ in stream:
            pass
    return str(caught.value).removeprefix(f"{path}: ")


def test_plain_and_gzipped_files_are_found_and_read_the_same(tmp_path):
    (tmp_path / "plain.json").write_text("a\n\nb\n\n")
    with gzip.open(tmp_path / "zipped.json.gz", "wt") as out:
        out.write("a\n\nb\n\n")
    plain, zipped = need_file(tmp_path, "plain.json"), need_file(tmp_path, "zipped.json")
    assert lines(plain) == lines(zipped) == [(1, "a"), (2, ""), (3, "b")]
    assert lines(plain, every=True) == lines(zipped, every=True) == [*lines(plain), (4, "")]
    assert find_file(tmp_path, "other.json") is None


@pytest.mark.parametrize("content", [b"{}\n", b""])
def test_file_that_is_no_gzip_is_refused(tmp_path, content):
    path = tmp_path / "lbl.json.gz"
    path.write_bytes(content)
    assert refused(path).startswith("line 1: the gzip is broken")


def test_a_byte_order_mark_is_no_content(tmp_path):
    for name, write in (("a.txt", bytes), ("a.txt.gz", gzip.compress)):
        for content in (b"a\nb\n", b"", "\N{BYTE ORDER MARK}\n".encode()):
            (tmp_path / name).write_bytes(write(codecs.BOM_UTF8 + content))
            with open_text(tmp_path / name) as stream:
                assert stream.read() == content


@pytest.mark.parametrize("behind", [bytes(4096), b"signature", b"\0\0\x1f", b"\x1f"])
def test_bytes_behind_a_gzip_are_left_out(tmp_path, behind):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n" * 300_000) + behind)
    assert [line for _, line in lines(path)] == ["a"] + ["b"] * 300_000


def test_what_is_not_utf8_is_refused_in_its_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("é\n".encode() * 200_000 + "é\n".encode("latin-1"))
    assert refused(path) == "line 200001: not UTF-8; save the file as UTF-8"
    path.write_bytes("aé".encode()[:-1])
    assert refused(path) == "line 1: not UTF-8; save the file as UTF-8"


def test_lines_that_are_not_utf8_are_latin1_one_by_one_and_counted(tmp_path):
    path = tmp_path / "Yf.txt"
    path.write_bytes("é\r\n".encode() + "Caf\xe9\nna\xefve\n\n".encode("latin-1"))
    said = Counter()
    assert list(text_lines(path, said)) == [(1, "é"), (2, "Café"), (3, "naïve")]
    assert said == {"lines of Yf.txt that are not UTF-8, read as latin-1": 2}
    path.write_bytes("é\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"line 1: holds bytes of zero; save the file as UTF-8"):
        lines(path)


def test_a_line_without_end_in_a_small_gzip_takes_little_memory(tmp_path):
    path = tmp_path / "a.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b"a\n")
        for _ in range(2 * LONGEST_LINE >> 20):
            out.write(bytes(1 << 20))
    tracemalloc.start()
    assert refused(path).startswith("line 2: has more than 67,108,864 bytes")
    assert tracemalloc.get_traced_memory()[1] < 3 * LONGEST_LINE
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("7", 7), (" 007 ", 7), ("20000001.0", 20000001), ("1.", 1)),
        *((wrong, None) for wrong in ("1.5", "-1", "", "1e3", "9" * 19, "٣")),
    ],
)
def test_whole_numbers(text, number):
    assert whole_number(text) == number
