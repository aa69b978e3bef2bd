from collections import Counter
from pathlib import Path

import pytest

from workbench.bench.synthetic import main, write_mimic4, write_xmc
from workbench.bench.synthetic_titles import zipf_titles
from workbench.errors import InputError
from workbench.labels.mimic4 import load_mimic4
from workbench.labels.xmc import load_xmc


@pytest.fixture(autouse=True)
def taxonomy(space, monkeypatch):
    """ICD-10-CM without a cache in the user's home."""
    for module in ("bench.synthetic", "labels.mimic4"):
        monkeypatch.setattr(f"workbench.{module}.load_icd10cm", lambda: space)


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_titles_are_distinct_short_and_follow_zipfs_law():
    titles = zipf_titles(20_000, seed=1)
    assert len(set(titles)) == 20_000
    assert 2 < sum(len(title.split()) for title in titles) / len(titles) < 5
    counts = Counter(word for title in titles for word in title.split())
    ranked = [count for _, count in counts.most_common()]
    assert ranked[10] > 20 * ranked[len(ranked) // 2]
    assert titles != zipf_titles(20_000, seed=2)


@pytest.mark.parametrize("n", [1, 2, 64, 999])
def test_as_many_titles_as_asked_for(n):
    assert all(len(set(zipf_titles(n, seed=seed))) == n for seed in range(20))


@pytest.mark.parametrize("write", [write_xmc, write_mimic4])
def test_seed_alone_decides_every_byte(tmp_path, write):
    first, same, other = (
        contents(write(tmp_path / name, documents=12, labels=16, seed=seed))
        for name, seed in (("first", 3), ("same", 3), ("other", 4))
    )
    assert first == same
    assert first.keys() == other.keys()
    assert first != other


def test_xmc_documents_quote_their_labels(tmp_path):
    corpus = load_xmc(write_xmc(tmp_path, documents=200, labels=64))
    assert len(corpus.label_ids) == 64
    documents = [d for split in corpus.splits for d in corpus.documents(split)]
    assert len(documents) == 250
    assert all(corpus.label_texts[i] in d.text for d in documents for i in d.labels + d.ignored)
    ignored = [d for d in documents if d.ignored]
    assert ignored
    assert all(d.title == corpus.label_texts[d.ignored[0]] for d in ignored)


def test_mimic_notes_mention_their_codes_and_no_one_else(tmp_path):
    folder = write_mimic4(tmp_path, documents=40, labels=32)
    for version in (9, 10):
        corpus = load_mimic4(folder, splits=folder / "splits.csv", version=version)
        documents = [d for split in corpus.splits for d in corpus.documents(split)]
        assert len(documents) == (13 if version == 9 else 27)
        texts = [text.lower() for text in corpus.label_texts]
        assert all(texts[i] in d.text for d in documents for i in d.labels)
        assert not corpus.undescribed


def test_same_letters_are_codes_of_both_versions(tmp_path):
    folder = write_mimic4(tmp_path)
    ten, nine = (load_mimic4(folder, version=version) for version in (10, 9))
    assert "icd10cm:E88.01" in ten.label_ids
    assert "icd9cm:E880.1" in nine.label_ids


def test_nothing_is_overwritten(tmp_path):
    write_xmc(tmp_path / "x")
    before = contents(tmp_path / "x")
    with pytest.raises(InputError, match=r"lbl\.json\.gz: exists already; name a new folder"):
        write_xmc(tmp_path / "x", seed=1)
    assert contents(tmp_path / "x") == before


def test_command_line_words_mentions_in_shorthand(tmp_path, capsys):
    sizes = ["--documents", "6", "--labels", "8", "--seed", "1"]
    command = ["--kind", "mimic4", "--out", str(tmp_path / "m"), *sizes]
    assert main(command) == 0
    corpus = load_mimic4(tmp_path / "m")
    texts = [corpus.label_texts[i].lower() for d in corpus.documents() for i in d.labels]
    notes = " ".join(d.text for d in corpus.documents())
    assert not all(text in notes for text in texts)
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


def test_command_line_counts(tmp_path):
    main(["--kind", "xmc", "--out", str(tmp_path), "--documents", "5", "--labels", "7"])
    corpus = load_xmc(tmp_path)
    assert (len(corpus.label_ids), len(list(corpus.documents("train")))) == (7, 5)


def test_folders_in_the_repository_are_read():
    folder = Path(__file__).parents[2] / "data" / "synthetic"
    xmc = load_xmc(folder / "xmc")
    mimic4 = load_mimic4(folder / "mimic4", splits=folder / "mimic4" / "splits.csv")
    for corpus in (xmc, mimic4):
        assert all(d.labels or d.ignored for s in corpus.splits for d in corpus.documents(s))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 200_000
