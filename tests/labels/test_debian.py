import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.labels.corpus import find_file
from workbench.labels.debian import BuiltFrom, xmc_files
from workbench.labels.debian_index import Package
from workbench.labels.lines import open_text
from workbench.labels.retrieving.groups import read_groups
from workbench.labels.xmc import load_xmc

ROOT = Path(__file__).parents[2]
ORIGIN = BuiltFrom("bookworm 12.15", "Sat", "a", "b", None)
N = 60


def some() -> list[Package]:
    """Three packages a source; each names the next two, and the last of all none."""
    names = [f"p{number}" for number in range(N)]
    return [
        Package(
            name=name,
            source=f"s{number // 3}",
            short=f"Package {number}",
            long=f"Long text {number}\nof two lines",
            related=(*names[number + 1 : number + 3], "gone", name),
        )
        for number, name in enumerate(names)
    ]


def test_the_folder_reads_as_xmc(tmp_path):
    made = xmc_files(some(), ORIGIN)
    made.write(tmp_path)
    corpus = load_xmc(tmp_path)
    assert corpus.label_texts[7] == "p7: Package 7" and corpus.label_contents[7].endswith("lines")
    assert not any(load_xmc(tmp_path, titles_only=True).label_contents)
    documents = {split: list(corpus.documents(split)) for split in ("train", "test")}
    assert made.record["documents"] == {split: len(x) for split, x in documents.items()}
    assert len(documents["test"]) == (N - 1) // 4  # the last one names nothing
    for document in documents["test"]:
        own = int(document.id[1:])
        assert set(document.labels) == {n for n in (own + 1, own + 2) if n < N}
        assert document.ignored == (own,) and document.text.startswith(f"Long text {own}")
    sources = {s: {int(d.id[1:]) // 3 for d in some} for s, some in documents.items()}
    assert not sources["train"] & sources["test"]
    groups = read_groups(tmp_path / "sources.tsv")
    assert len(groups) == N - 1 and groups["p6"] == groups["p7"] == groups["p8"] != groups["p9"]


def test_pairs_that_test_documents_have_the_other_way_are_left_out_of_training(tmp_path):
    packages = some()
    for number in range(0, N - 1):  # each names the one before it, too
        back = (f"p{number - 1}",) if number else ()
        packages[number] = replace(packages[number], related=packages[number].related + back)
    made = xmc_files(packages, ORIGIN)
    made.write(tmp_path)
    corpus = load_xmc(tmp_path)
    asked = {
        (int(document.id[1:]), label)
        for document in corpus.documents("test")
        for label in document.labels
    }
    taught = {
        (label, int(document.id[1:]))
        for document in corpus.documents("train")
        for label in document.labels
    }
    assert asked and not asked & taught
    assert made.record["left_out_of_training"] > 0


def test_building_twice_gives_the_same_bytes_and_a_pin_is_checked(tmp_path):
    for name in ("one", "two"):
        xmc_files(some(), ORIGIN).write(tmp_path / name)
    paths = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(paths) == 7
    for path in paths:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    pin = tmp_path / "one" / "debian.json"
    xmc_files(some(), ORIGIN).check(pin)
    with pytest.raises(InputError, match="expects packages a, but the index of Sat gives c"):
        xmc_files(some(), replace(ORIGIN, packages="c")).check(pin)
    with pytest.raises(InputError, match=r"expects lbl.json \w+, but"):
        xmc_files(some()[:-1], ORIGIN).check(pin)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="no record of a label set"):
        xmc_files(some(), ORIGIN).check(tmp_path / "other.json")


def test_a_sample_holds_what_its_documents_need(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.labels.debian.N_HARD", 2)
    monkeypatch.setattr("workbench.labels.cache.user_cache", lambda: None)
    whole, part = xmc_files(some(), ORIGIN), xmc_files(some(), ORIGIN, sample=8)
    part.write(tmp_path)
    corpus = load_xmc(tmp_path)
    assert part.record["documents"] == {"train": 6, "test": 2}
    assert len(corpus.label_ids) < N
    kept = {row["uid"]: row for row in map(json.loads, whole.files["trn.json"].splitlines())}
    for document in corpus.documents("train"):
        names = [corpus.label_ids[label] for label in document.labels]
        there = [f"p{label}" for label in kept[document.id]["target_ind"]]
        assert set(names) <= set(there) and document.id in corpus.label_ids


def test_too_few_packages_are_refused():
    with pytest.raises(InputError, match="fewer than four packages"):
        xmc_files(some()[:3], ORIGIN)


def test_the_sample_that_comes_along_is_what_its_record_says():
    folder = ROOT / "data" / "debian"
    record = json.loads((folder / "debian.json").read_text())
    for name, digest in record["files"].items():
        path = find_file(folder, name)
        assert path is not None
        with open_text(path) as file:
            assert hashlib.sha256(file.read()).hexdigest() == digest, name
    corpus = load_xmc(folder)
    assert len(corpus.label_ids) == record["labels"]
    counts = Counter(split for split in corpus.splits for _ in corpus.documents(split))
    assert dict(counts) == record["documents"]
    whole = json.loads((folder / "whole.json").read_text())
    assert whole["built_from"] == record["built_from"] and whole["built_from"]["as_released"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
