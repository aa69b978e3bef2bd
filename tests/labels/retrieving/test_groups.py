"""Files that say which documents belong together."""

import pytest

from workbench.errors import InputError
from workbench.labels.retrieving.groups import read_groups


def test_groups_are_numbered_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "sources.tsv"
    path.write_text("a 1\tone\nb\ttwo\nc\tone\n")
    assert read_groups(path) == {"a 1": 0, "b": 1, "c": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\tone\nb two\n", "line 2 is not"),
        ("a\tone\n\n", "line 2 is not"),
        ("a\tone\ttwo\n", "line 1 is not"),
        ("a\tone\na\ttwo\n", "line 2 is of a document that"),
        ("", "holds no line"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    path = tmp_path / "sources.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_groups(path)
    path.write_bytes(b"\xff\tone\n")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_groups(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_groups(tmp_path / "none.tsv")
