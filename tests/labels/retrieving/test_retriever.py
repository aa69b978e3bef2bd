"""The retriever on a small corpus: what each way finds, and what each needs."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from workbench.errors import InputError
from workbench.labels.corpus import Document, check_split
from workbench.labels.retrieving.retriever import Retriever, sampled
from workbench.labels.retrieving.ways import WAYS, check_ways
from workbench.labels.space import Label, LabelSpace

IDS = ["gout", "hypert", "pneu", "frac", "catar"]
TEXTS = ["Gout", "Essential hypertension", "Pneumonia", "Fracture of femur", "Cataract, senile"]
TERMS = [("podagra",), ("high blood pressure",), (), ("broken thigh bone",), ()]
LONG = ["swollen toe", "", "lung infection", "", "clouded lens of the eye"]
FILLER = "The patient was seen in clinic and was discharged home in good condition. "


@dataclass
class Small:
    """A corpus in memory."""

    train: list[Document]
    name: str = "small"
    label_ids: list[str] = field(default_factory=lambda: IDS)
    label_texts: list[str] = field(default_factory=lambda: TEXTS)
    label_contents: list[str] = field(default_factory=lambda: LONG)
    text_is_private = False
    left_out = ()

    def __post_init__(self):
        rows = zip(IDS, TEXTS, TERMS, strict=True)
        self.space = LabelSpace("small", [Label(a, b, ("all",), c) for a, b, c in rows])
        self.splits = ("train", "test") if self.train else ("test",)

    def documents(self, split):
        check_split(self, split)
        return iter(self.train)

    def cluster(self, label):
        return None


TRAIN = [
    Document("t0", "", "knee with crystals and colchicine", (0,)),
    Document("t1", "", "opacity, phacoemulsification", (4,)),
    Document("t2", "", "fell from stairs", ()),
]


@pytest.fixture
def retriever(tmp_path):
    return Retriever(Small(TRAIN), n_threads=1, cache_dir=tmp_path)


def best(retriever, way, text, *, title="", id=""):
    tops = retriever.each([Document(id, title, text, ())], 3, [way])[way]
    return int(tops[0, 0])


@pytest.mark.parametrize(
    ("way", "text", "label"),
    [
        ("bm25", "old podagra", 0),
        ("bm25-passages", FILLER + "High blood pressure.", 1),
        ("bm25-long", "an infection of the lung", 2),
        ("chars", "hypertensive, essentially", 1),
        ("chars-passages", FILLER * 3 + "Pneumonias. " + FILLER, 2),
        ("chars-clauses", FILLER * 3 + "It was, in the end, pneumonias. " + FILLER, 2),
        ("examples", "colchicine was given", 0),
        ("examples", "phacoemulsification", 4),
    ],
)
def test_what_each_way_finds(retriever, way, text, label):
    assert best(retriever, way, text) == label


def test_titles_and_names(retriever):
    text = "gout gout gout"
    assert best(retriever, "bm25-title", text, title="senile cataract") == 4
    assert best(retriever, "chars-title", "fractures of the femur") == 3
    assert best(retriever, "names", text, id="fract-1") == 3
    assert best(retriever, "bm25", "zzz") == -1 and best(retriever, "examples", "zzz") == -1


def test_a_passage_counts_by_the_best_or_with_the_others(tmp_path):
    text = "Fracture of.\nEssential unease.\nEssential oils.\nEssential need."
    kinds = {pool: Retriever(Small([]), pool=pool, cache_dir=tmp_path) for pool in ("max", "sum")}
    found = {pool: best(one, "bm25-passages", text) for pool, one in kinds.items()}
    assert found == {"max": 3, "sum": 1}


def test_a_training_document_is_no_example_of_itself(retriever):
    found = retriever.each(TRAIN[:2], 3, ["examples"])["examples"]
    assert found.tolist() == [[-1, -1, -1], [-1, -1, -1]]


def test_documents_of_a_group_are_no_examples_of_one_another(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.labels.retrieving.indexes.NEAREST", 2)
    train = [Document(f"t{n}", "", "colchicine " + "knee " * n, (n,)) for n in range(5)]
    apart = {"t0": 7, "t1": 7, "t2": 7, "t9": 7}
    alone, grouped = (
        Retriever(Small(train), n_threads=1, cache_dir=tmp_path, groups=groups)
        for groups in (None, apart)
    )
    asked = [train[0], train[3], Document("t9", "", "knee", ()), Document("x", "", "knee", ())]
    found = [one.each(asked, 5, ["examples"])["examples"] for one in (alone, grouped)]
    first, second = ([set(row[row >= 0].tolist()) for row in tops] for tops in found)
    assert first[0] & {1, 2} and second[0] == {3, 4}  # both that are left, though others are nearer
    assert second[1] and 3 not in second[1]  # in no group: alone
    assert second[2] == {3, 4} and first[2] == first[3]
    assert len(second[3]) == 2  # never more than count


def test_vectors_of_a_model(tmp_path):
    def embed(texts):
        return np.array([[text.count("o"), text.count("e") + 1] for text in texts], dtype=float)

    retriever = Retriever(Small([]), embed=embed, cache_dir=tmp_path)
    assert "dense" in retriever.available()
    assert best(retriever, "dense", "ooooo o") == 0  # Gout, 1 : 1, is nearest to 6 : 1


def test_fused_ways_and_plain_texts(retriever):
    retriever.ways = ("bm25", "chars", "examples")
    found = retriever.top(["gout treated with colchicine", ""], 5)
    assert found.shape == (2, 5) and found[0, 0] == 0 and set(found[1]) == {-1}
    assert retriever.top([], 2).shape == (0, 2)


def test_what_is_not_there_is_not_available(tmp_path):
    bare = Small([], label_contents=[""] * 5)
    retriever = Retriever(bare, cache_dir=tmp_path)
    assert set(WAYS) - set(retriever.available()) == {"dense", "examples", "bm25-long"}
    needs = {"dense": "--dense FOLDER", "examples": "training documents", "bm25-long": "long texts"}
    for way, said in needs.items():
        with pytest.raises(InputError, match=said):
            retriever.each([Document("", "", "a", ())], 1, [way])
    with pytest.raises(InputError, match="k is 0"):
        retriever.top(["a"], 0)


def test_names_of_ways():
    assert check_ways("bm25, chars,bm25") == ["bm25", "chars", "bm25"]
    for wrong in ("", "bm52"):
        with pytest.raises(InputError, match="is not one of bm25, bm25-passages"):
            check_ways(wrong)


def test_a_random_part_of_documents_in_their_order():
    some = [Document(str(n), "", "", ()) for n in range(100)]
    part = [int(document.id) for document in sampled(some, 30)]
    assert part == sorted(part) and len(set(part)) == 30 and max(part) > 50
    assert sampled(some, 200) == some
    assert part == [int(one.id) for one in sampled(some, 30)]
