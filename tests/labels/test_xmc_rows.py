"""Folders as public loaders have them: true names and shapes of every file, made-up content."""

import codecs
import gzip
import json
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.labels.xmc import load_xmc

LATIN = "Caf\xe9 culture"
LABELS = f"Jazz &amp; Blues\n{LATIN}\n\nR&D\n"
TEXTS = {"trn": ["A night of jazz", "Beans", "Nothing of these"], "tst": ["Caf\xe9s &amp; bars"]}


def write(folder: Path, **files: str | bytes) -> Path:
    """Files by name, gzipped by it; text as latin-1."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode("latin-1")
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def lines(rows: list[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def seen(corpus) -> list[tuple]:
    return [(d.full_text, d.labels, d.ignored) for s in corpus.splits for d in corpus.documents(s)]


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        seen(load_xmc(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


EXPECTED = [
    ("A night of jazz", (0, 3), ()),
    ("Beans", (1,), (2,)),
    ("Nothing of these", (), ()),
    ("Caf\xe9s & bars", (1,), ()),
]
GOLD = {"trn": [[0, 3], [1, 2], []], "tst": [[1]]}
UNDESCRIBED = "undescribed labels, without a text, whose id stands for it: 1"


def amazon_670k(folder: Path) -> Path:
    """Amazon-670K and Wikipedia-500K, raw: `trn.raw.json.gz`, label texts in `Yf.txt`, latin-1."""
    for stem, texts in TEXTS.items():
        rows = [
            {
                "uid": f"{stem}{i}",
                "title": text,
                "target_ind": gold,
                "target_rel": [1.0] * len(gold),
            }
            for i, (text, gold) in enumerate(zip(texts, GOLD[stem], strict=True))
        ]
        content = lines([json.dumps(row, ensure_ascii=False) for row in rows])
        write(folder, **{f"{stem}.raw.json.gz": content})
    return write(folder, **{"Yf.txt": LABELS, "trn_filter_labels.txt": "1 2\n"})


def renee(folder: Path, raw: str = "") -> Path:
    """Renee, NGAME, ZestXML: `trn_X.txt`, `trn_X_Y.txt`, `Y.txt`; empty rows have no label."""
    for stem, texts in TEXTS.items():
        rows = [" ".join(f"{label}:1.0" for label in gold) for gold in GOLD[stem]]
        size = f"{len(rows)} 4"
        write(folder, **{f"{stem}_X_Y.txt": lines([size, *rows])})
        write(folder, **{f"{raw}{stem}_X.txt": lines(texts)})
    filters = {"trn_filter_labels.txt": "1 2\n", "tst_filter_labels.txt": ""}
    # In these folders `Yf.txt` names the features of labels.
    return write(folder, **{f"{raw}Y.txt": LABELS, "Yf.txt": "1_jazz\n1_blues\n"}, **filters)


def ngame(folder: Path) -> Path:
    """The same with the texts in `raw/`."""
    return renee(folder, raw="raw/")


def svmlight(folder: Path) -> Path:
    """Labels before the features, as in the BoW files; texts as AttentionXML has them."""
    for split, stem in (("train", "trn"), ("test", "tst")):
        rows = [f"{','.join(map(str, gold))} 0:0.5 17:0.25" for gold in GOLD[stem]]
        content = lines([f"{len(rows)} 18 4", *rows])
        write(folder, **{f"eurlex_{split}.txt.gz": content})
        write(folder, **{f"{split}_raw_texts.txt": lines(TEXTS[stem])})
    return write(folder, **{"Y.txt": LABELS, "filter_labels_train.txt": "1 2\n"})


@pytest.mark.parametrize("layout", [amazon_670k, renee, ngame, svmlight])
def test_layouts_of_public_loaders_read_the_same(tmp_path, layout):
    corpus = load_xmc(layout(tmp_path))
    assert corpus.label_texts == ["Jazz & Blues", LATIN, "2", "R&D"]
    assert corpus.label_ids == ["0", "1", "2", "3"]
    assert corpus.splits == ("train", "test")
    assert seen(corpus) == EXPECTED
    assert UNDESCRIBED in corpus.left_out
    labels = "Yf.txt" if layout is amazon_670k else "Y.txt"
    assert f"lines of {labels} that are not UTF-8, read as latin-1: 1" in corpus.left_out
    assert sum("that are not UTF-8" in line for line in corpus.left_out) == 2
    assert "texts with HTML entities, which became their characters: 2" in corpus.left_out


def test_utf8_with_a_byte_order_mark_and_line_ends_of_windows(tmp_path):
    for path in renee(tmp_path).rglob("*.txt"):
        text = path.read_bytes().decode("latin-1").replace("\n", "\r\n")
        path.write_bytes(codecs.BOM_UTF8 + text.encode())
    corpus = load_xmc(tmp_path)
    assert seen(corpus) == EXPECTED
    assert not any("latin-1" in line for line in corpus.left_out)


def test_plain_lines_are_titles_where_only_titles_are_asked_for(tmp_path):
    first = next(load_xmc(renee(tmp_path), titles_only=True).documents("train"))
    assert (first.id, first.title, first.text) == ("0", "A night of jazz", "")


def test_rows_without_a_first_line_and_values_of_zero(tmp_path):
    renee(tmp_path)
    write(tmp_path, **{"trn_X_Y.txt": "0:1 3:0.5 3:1 2:0\n1:1\n\n"})
    corpus = load_xmc(tmp_path)
    assert seen(corpus)[:3] == EXPECTED[:3]
    assert any(line.endswith("which are not gold: 1") for line in corpus.left_out)
    write(tmp_path, **{"trn_X_Y.txt": "0:1 3:1\n1:1\n"})
    assert refused(tmp_path) == "trn_X.txt: line 3: a text, but trn_X_Y.txt has no row for it"
    svmlight(tmp_path / "svm")
    write(tmp_path / "svm", **{"eurlex_train.txt.gz": "0,3 1:1\n1 2:1\n2:0.5 3:1\n"})
    assert seen(load_xmc(tmp_path / "svm"))[:3] == EXPECTED[:3]
    write(tmp_path / "svm", **{"wiki_train.txt": "0 1:1\n"})
    with pytest.raises(InputError, match=r"eurlex_train.txt and wiki_train.txt are rows of labels"):
        load_xmc(tmp_path / "svm")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trn_X_Y.txt", "3 4\n0:1\n1:1\n", "trn_X_Y.txt: line 1: says 3 rows, but 2 follow"),
        ("trn_X_Y.txt", "3 5\n0:1\n\n\n", "trn_X_Y.txt: line 1: says 5 labels, but Y.txt has 4"),
        ("trn_X_Y.txt", "3 4\n0:1\n4:1\n\n", "trn_X_Y.txt: line 3: label 4, but labels go from 0"),
        ("trn_X_Y.txt", "3 4\n0\n\n\n", "trn_X_Y.txt: line 2: a value is no number; 'label:value'"),
        ("trn_X_Y.txt", "3 4\n0:nan\n\n\n", "trn_X_Y.txt: line 2: a value is no number"),
        ("trn_X_Y.txt", "3 4\nx:1\n\n\n", "trn_X_Y.txt: line 2: a label is no number from 0;"),
        ("trn_X.txt", "a\nb\n", "trn_X_Y.txt: line 4: labels of row 2, but trn_X.txt has 2 lines"),
        ("trn_X.txt", "a\nb\nc\nd\n", "trn_X.txt: line 4: a text, but trn_X_Y.txt has no row for"),
        (
            "Y.txt",
            "4 9\n0:1.0\n1:1\n\n3:1\n",
            "Y.txt: a matrix of numbers, and no texts; the texts",
        ),
        ("Y.txt", "\n\n\n\n", "Y.txt: holds no labels; a text a line is needed"),
        ("trn_filter_labels.txt", "3 0\n", "trn_filter_labels.txt: line 1: document 3, but trn_X"),
    ],
)
def test_refused_rows_with_file_and_line(tmp_path, name, content, message):
    write(renee(tmp_path), **{name: content})
    assert refused(tmp_path).startswith(message)


def test_texts_and_labels_need_each_other(tmp_path):
    renee(tmp_path)
    (tmp_path / "tst_X_Y.txt").unlink()
    message = "tst_X.txt: texts and no labels; tst_X_Y.txt is needed beside it"
    assert refused(tmp_path) == message
    (tmp_path / "tst_X.txt").unlink()
    (tmp_path / "trn_X.txt").unlink()
    message = (
        "trn_X_Y.txt: labels and no text; trn_X.txt or trn.json with texts is needed beside it"
    )
    assert refused(tmp_path) == message
