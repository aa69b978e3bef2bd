import pytest

from workbench.errors import InputError
from workbench.labels.corpus import Document, need_file


def test_text_does_not_show_in_repr_and_so_not_in_logs():
    shown = repr(Document(id="7", title="private title", text="private note", labels=(1,)))
    assert "private" not in shown
    assert "labels=(1,)" in shown


@pytest.mark.parametrize(
    ("title", "text", "full"), [("A", "b", "A\nb"), ("A", "", "A"), ("", "b", "b")]
)
def test_full_text_is_whatever_is_there(title, text, full):
    assert Document(id="7", title=title, text=text, labels=()).full_text == full


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no lbl\.json\.gz \(or lbl\.json\) in this folder$"):
        need_file(tmp_path, "lbl.json")
    with pytest.raises(InputError, match=r"nowhere: no such folder$"):
        need_file(tmp_path / "nowhere", "lbl.json")
