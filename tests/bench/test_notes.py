from collections import Counter, defaultdict

import pandas as pd
import pytest

from workbench.bench.notes import TELLINGS, write_notes
from workbench.errors import InputError
from workbench.labels.folders import open_corpus
from workbench.labels.icd10cm import category
from workbench.labels.words import words


@pytest.fixture(scope="module", autouse=True)
def taxonomy(space):
    """A small ICD-10-CM."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("bench.notes", "labels.mimic4"):
            patch.setattr(f"workbench.{module}.load_icd10cm", lambda: space)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, taxonomy):
    """Notes that no test changes."""
    path = tmp_path_factory.mktemp("made") / "notes"
    write_notes(path, n=30, n_training=10, seed=3)
    return path


def read(folder):
    corpus = open_corpus(f"mimic4:{folder}")
    documents = {d.id: d for split in corpus.splits for d in corpus.documents(split)}
    return corpus, documents, pd.read_csv(folder / TELLINGS)


def test_all_leaf_codes_are_labels_with_their_inclusion_terms(folder, space):
    corpus = open_corpus(f"mimic4:{folder}")
    assert [name.partition(":")[2] for name in corpus.label_ids] == space.ids
    assert len(list(corpus.documents("test"))) == 30
    assert len(list(corpus.documents("train"))) == 10
    assert any(label.synonyms for label in corpus.space)


def test_every_diagnosis_is_told_two_to_five_times_in_other_words_and_sections(folder):
    corpus, documents, tellings = read(folder)
    told = defaultdict(list)
    for row in tellings.itertuples():
        said = documents[row.note_id].full_text[row.start : row.end]
        assert said == said.strip()
        told[row.note_id, row.label].append((frozenset(words(said)), row.section, row.whole))
    pairs = {(d.id, corpus.label_ids[label]) for d in documents.values() for label in d.labels}
    assert set(told) == pairs
    for rows in told.values():
        sets, sections, whole = zip(*rows, strict=True)
        assert 2 <= len(rows) <= 5
        assert len(set(sets)) == len(rows) == len(set(sections))
        assert any(whole)


def test_few_tellings_are_the_labels_own_words(folder):
    corpus, documents, tellings = read(folder)
    text = dict(zip(corpus.label_ids, corpus.label_texts, strict=True))
    verbatim = Counter()
    for row in tellings.itertuples():
        said = documents[row.note_id].full_text[row.start : row.end]
        verbatim[row.note_id, row.label] += words(said) == words(text[row.label])
    assert max(verbatim.values()) == 1
    assert 0 < sum(verbatim.values()) < 0.4 * len(verbatim)


def test_what_tells_a_label_is_nowhere_else_in_the_note(folder):
    _, documents, tellings = read(folder)
    for note, rows in tellings.groupby("note_id"):
        text = documents[note].full_text
        rest, end = "", 0
        for row in rows.itertuples():
            assert row.start >= end
            rest, end = f"{rest}{text[end : row.start]} | ", row.end
        rest = f" {' '.join(words(rest + text[end:]))} "
        assert not any(
            f" {' '.join(words(text[r.start : r.end]))} " in rest for r in rows.itertuples()
        )


def test_notes_have_lists_line_breaks_negations_and_codes_of_distinct_categories(folder):
    corpus, documents, _ = read(folder)
    texts = [document.full_text for document in documents.values()]
    assert all("Brief Hospital Course:\n" in text and "\ue000" not in text for text in texts)
    assert sum("ruled out" in text or "denied" in text.lower() for text in texts) > 3
    assert sum("\n  - " in text or "\n1. " in text for text in texts) > 10
    for document in documents.values():
        codes = [corpus.label_ids[label].partition(":")[2] for label in document.labels]
        assert len({*map(category, codes)}) == len(codes) in range(1, 7)


def test_training_notes_tell_near_misses_of_the_test_notes(tmp_path, space):
    write_notes(tmp_path / "notes", n=60, n_training=60, seed=5)
    corpus = open_corpus(f"mimic4:{tmp_path / 'notes'}")
    test, train = (
        [{space.cluster(corpus.label_ids[x].partition(":")[2]) for x in d.labels} for d in found]
        for found in (corpus.documents("test"), corpus.documents("train"))
    )
    shared = [len(a & b) / len(a) for a, b in zip(test, train, strict=True)]
    assert sum(shared) / len(shared) > 0.8
    assert not any(
        d.labels == e.labels for d in corpus.documents("test") for e in corpus.documents("train")
    )


def test_a_note_depends_on_seed_and_place_alone(tmp_path, folder):
    write_notes(tmp_path / "same", n=4, n_training=2, seed=3)
    write_notes(tmp_path / "other", n=4, n_training=2, seed=4)
    first, same, other = (
        [d.full_text for d in open_corpus(f"mimic4:{path}").documents("test")][:4]
        for path in (folder, tmp_path / "same", tmp_path / "other")
    )
    assert first == same
    assert not set(first) & set(other)


def test_nothing_is_overwritten(folder):
    with pytest.raises(InputError, match="exists already; name a new folder"):
        write_notes(folder)


def test_hard_notes_share_fewer_words_with_their_labels(tmp_path, folder):
    write_notes(tmp_path / "hard", n=30, n_training=10, seed=3, hard=True)

    def shared(path):
        corpus, documents, tellings = read(path)
        text = dict(zip(corpus.label_ids, corpus.label_texts, strict=True))
        shares = []
        for row in tellings.itertuples():
            own = set(words(text[row.label]))
            said = words(documents[row.note_id].full_text[row.start : row.end])
            shares.append(len(own.intersection(said)) / len(own))
        return sum(shares) / len(shares)

    assert shared(tmp_path / "hard") < shared(folder) - 0.03
