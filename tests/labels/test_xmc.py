import codecs
import gzip
import json
from pathlib import Path

import pytest

from workbench.bench.synthetic import write_xmc
from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.xmc import load_xmc

LABELS = [{"uid": f"l{i}", "title": f"Label {i}"} for i in range(4)]


def document(uid: str, targets: object = (0,), **more: object) -> dict[str, object]:
    row = {"uid": uid, "title": f"Title {uid}", "content": f"Content {uid}", "target_ind": targets}
    return row | more


def write_lines(path: Path, rows: list) -> None:
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )


@pytest.fixture
def folder(tmp_path):
    """Four labels, three training documents, one test document, all plain."""
    write_lines(tmp_path / "lbl.json", LABELS)
    rows = [document("a", [2, 0]), document("b", [1, 3, 1]), document("c", [])]
    write_lines(tmp_path / "trn.json", rows)
    write_lines(tmp_path / "tst.json", [document("d", [3], target_rel=[1.0])])
    return tmp_path


def refused(folder: Path, split: str = "train") -> str:
    with pytest.raises(InputError) as caught:
        list(load_xmc(folder).documents(split))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


def test_labels_and_documents_in_the_order_of_the_files(folder):
    corpus = load_xmc(folder, name="tiny")
    assert isinstance(corpus, LabelledCorpus)
    assert (corpus.name, corpus.splits) == ("tiny", ("train", "test"))
    assert corpus.text_is_private is False
    assert corpus.label_ids == ["l0", "l1", "l2", "l3"]
    assert corpus.label_texts[2] == "Label 2"
    assert corpus.cluster(0) is None
    first, second, third = corpus.documents("train")
    assert (first.id, first.title, first.text) == ("a", "Title a", "Content a")
    assert [first.labels, second.labels, third.labels] == [(2, 0), (1, 3), ()]
    assert [d.labels for d in corpus.documents("test")] == [(3,)]


def test_gzipped_files_read_the_same(folder):
    plain = list(load_xmc(folder).documents("train"))
    for path in list(folder.glob("*.json")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert list(load_xmc(folder).documents("train")) == plain


def test_titles_only_data_have_no_text_whether_left_out_or_not_there(folder):
    assert {d.text for d in load_xmc(folder, titles_only=True).documents("train")} == {""}
    write_lines(folder / "tst.json", [{"uid": 9, "title": "T", "target_ind": [0]}])
    (titled,) = load_xmc(folder).documents("test")
    assert (titled.id, titled.text, titled.full_text) == ("9", "", "T")


def test_files_of_other_tools_read_the_same(folder):
    (folder / "filter_labels_train.txt").write_text("1 3\n")
    plain = list(load_xmc(folder).documents("train"))
    for path in folder.iterdir():
        lines = path.read_bytes().replace(b"\n", b"\r\n")
        path.write_bytes(codecs.BOM_UTF8 + lines.replace(b"1 3", b"1.0 3.0"))
    assert list(load_xmc(folder).documents("train")) == plain
    write_lines(folder / "tst.json", [{"uid": 12.0, "title": "T", "target_ind": [0]}])
    assert next(load_xmc(folder).documents("test")).id == "12"


def test_labels_without_a_text_go_by_their_id_and_are_counted(folder):
    rows = [{"uid": "l0"}, {"uid": "l1", "title": " "}, {"uid": "l2", "title": None}]
    rows.append({"uid": "l3", "title": "Label&#10;3"})
    write_lines(folder / "lbl.json", rows)
    corpus = load_xmc(folder)
    assert corpus.label_texts == ["l0", "l1", "l2", "Label 3"]
    assert corpus.undescribed == 3
    assert "undescribed labels, without a text, whose id stands for it: 3" in corpus.left_out
    write_lines(folder / "lbl.json", [*rows[:3], {"uid": "l3"}])
    assert refused(folder) == "lbl.json: no label has a 'title'; a string is needed"


def test_what_is_not_gold_or_not_as_written_is_said_once_however_often_it_is_read(folder):
    rows = [document("a", [2, 0, 1], target_rel=[1, 0, -0.5], title="A &amp; B&#39;s &copy C &x;")]
    rows.append({"content": "No uid", "target_ind": [1]})
    write_lines(folder / "trn.json", rows)
    corpus = load_xmc(folder)
    for _ in range(2):
        first, second = corpus.documents("train")
    assert (first.labels, first.title) == ((2,), "A & B's &copy C &x;")
    assert (second.id, second.full_text, second.labels) == ("1", "No uid", (1,))
    assert sorted(corpus.left_out) == [
        "pairs of a document and a label with a relevance of 0 or less, which are not gold: 2",
        "rows without a uid, called by their number: 1",
        "texts with HTML entities, which became their characters: 1",
    ]


def test_documents_are_streamed(folder):
    with (folder / "trn.json").open("a") as out:
        out.write("not JSON\n")
    documents = load_xmc(folder).documents("train")
    assert [next(documents).id for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"trn\.json: line 4: not JSON"):
        next(documents)


def test_filtered_pairs_are_neither_labels_nor_forgotten(folder):
    (folder / "filter_labels_train.txt").write_text("1 3\n0 1\n1 2\n1 3\n")
    first, second, third = load_xmc(folder).documents("train")
    assert (first.labels, first.ignored) == ((2, 0), (1,))
    assert (second.labels, second.ignored) == ((1,), (2, 3))
    assert third.ignored == ()
    (other,) = load_xmc(folder).documents("test")
    assert other.ignored == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (document("z", [1, 4]), "target_ind has 4, but labels go from 0 to 3"),
        (document("z", [-1]), "target_ind has -1, but labels go from 0 to 3"),
        (document("z", ["1"]), "no 'target_ind'; a list of label numbers is needed"),
        (document("z", None), "no 'target_ind'; a list of label numbers is needed"),
        (document("z", [1, 2], target_rel=[1.0]), "target_rel has 1 numbers, but target_ind has 2"),
        (document("b"), "uid 'b' occurs for the second time; uids are distinct"),
        (document("", [0]), "no 'uid'; a string or a number is needed"),
        ({"uid": "z", "target_ind": [0]}, "no 'title' and no 'content'; a string is needed"),
        (document("z", title=7), "no 'title'; a string is needed"),
        (
            '{"uid": "z", "title\n',
            "not JSON, column 14: Unterminated string starting at; one object a line is needed",
        ),
        (document("z", [True]), "no 'target_ind'; a list of label numbers is needed"),
        (document("z", [1.0]), "no 'target_ind'; a list of label numbers is needed"),
        (
            document("z", [9**30]),
            "a whole number of 29 digits is too large; one object a line is needed",
        ),
        (
            document("z", [0], target_rel=[float("nan")]),
            "the number 'NaN' is not finite; one object a line is needed",
        ),
        (document("z", [0], target_rel=["1"]), "target_rel has something else than numbers"),
        ({"uid": True, "title": ""}, "no 'uid'; a string or a number is needed"),
        (
            '{"uid": ' + "[" * 10**5 + "\n",
            "not JSON that can be read: nested too deeply; one object a line is needed",
        ),
        ("[1]\n", "not a JSON object; one object a line is needed"),
    ],
)
def test_refused_documents_with_file_and_line(folder, row, message):
    rows = [document("a"), document("b"), row, document("c")]
    write_lines(folder / "trn.json", rows)
    assert refused(folder) == f"trn.json: line 3: {message}"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*LABELS, LABELS[1]], "5: uid 'l1' occurs for the second time; uids are distinct"),
        ([{"uid": "l0", "title": 7}], "1: no 'title'; a string is needed"),
        (
            [{"uid": "l0", "title": "x" * 10**5}],
            "1: the label has 100,000 characters, at most 10,000 are read; is it a document?",
        ),
        (
            [{"uid": "l0", "title": "\ud800"}],
            "1: holds half of a character (a lone \\u escape); one object a line is needed",
        ),
        ([LABELS[0], "\n"] * 2, "2: not a JSON object; one object a line is needed"),
        ("0 1\n5 0\n", "2: document 5, but trn.json has 3, counted from 0"),
        ("0 4\n", "1: document 0, label 4, but labels go from 0 to 3"),
        (f"{9**99} 0\n", "1: not two numbers from 0; 'document label' is needed"),
        ("0 -1\n", "1: not two numbers from 0; 'document label' is needed"),
        ("0 1\n0\n", "2: not two numbers from 0; 'document label' is needed"),
    ],
)
def test_refused_labels_and_filters_with_file_and_line(folder, rows, message):
    name = "filter_labels_train.txt" if isinstance(rows, str) else "lbl.json"
    write_lines(folder / name, list(rows))
    assert refused(folder) == f"{name}: line {message}"


def test_no_labels_no_documents_and_no_such_split(folder):
    with pytest.raises(InputError, match=r"has no split 'val'; it has train, test$"):
        load_xmc(folder).documents("val")
    (folder / "lbl.json").write_text("\n")
    assert "holds no labels" in refused(folder)
    (folder / "trn.json").unlink()
    (folder / "tst.json").unlink()
    write_lines(folder / "lbl.json", LABELS)
    message = refused(folder)
    assert message.startswith(f"{folder}: no documents in this folder; trn.json, trn.raw.json, or")
    (folder / "lbl.json").unlink()
    write_lines(folder / "tst.json", [document("d", [3])])
    assert "no label texts in this folder; lbl.json, Y.txt or Yf.txt" in refused(folder)


def test_gzip_that_is_cut_off_is_refused_in_the_line_it_breaks(tmp_path):
    write_xmc(tmp_path, documents=400)
    path = tmp_path / "trn.json.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    documents = load_xmc(tmp_path).documents("train")
    read = 0
    with pytest.raises(InputError) as caught:
        for _ in documents:
            read += 1
    assert f"trn.json.gz: line {read + 1}: the gzip is broken or cut off" in str(caught.value)
    assert 0 < read < 400
