import gzip

import pytest

from workbench.errors import InputError
from workbench.labels.corpus import Document, find_file, need_file, numbered_lines


def test_text_does_not_show_in_repr_and_so_not_in_logs():
    shown = repr(Document(id="7", title="private title", text="private note", labels=(1,)))
    assert "private" not in shown
    assert "labels=(1,)" in shown


@pytest.mark.parametrize(
    ("title", "text", "full"), [("A", "b", "A\nb"), ("A", "", "A"), ("", "b", "b")]
)
def test_full_text_is_whatever_is_there(title, text, full):
    assert Document(id="7", title=title, text=text, labels=()).full_text == full


def test_plain_and_gzipped_files_are_found_and_read_the_same(tmp_path):
    (tmp_path / "plain.json").write_text("a\n\nb\n\n")
    with gzip.open(tmp_path / "zipped.json.gz", "wt") as out:
        out.write("a\n\nb\n\n")
    plain, zipped = need_file(tmp_path, "plain.json"), need_file(tmp_path, "zipped.json")
    assert list(numbered_lines(plain)) == [(1, b"a\n"), (2, b""), (3, b"b\n")]
    assert list(numbered_lines(zipped)) == list(numbered_lines(plain))
    assert find_file(tmp_path, "other.json") is None


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no lbl\.json\.gz \(or lbl\.json\) in this folder$"):
        need_file(tmp_path, "lbl.json")
    with pytest.raises(InputError, match=r"nowhere: no such folder$"):
        need_file(tmp_path / "nowhere", "lbl.json")


def test_file_that_is_no_gzip_is_refused(tmp_path):
    path = tmp_path / "lbl.json.gz"
    path.write_text("{}\n")
    with pytest.raises(InputError, match=r"lbl\.json\.gz: line 1: the gzip is broken"):
        list(numbered_lines(path))
