from dataclasses import dataclass, field

import pytest

from workbench.labels.kin import kinship
from workbench.labels.space import Label, LabelSpace


@dataclass
class Corpus:
    label_ids: list[str]
    label_texts: list[str]
    clusters: list[str | None] = field(default_factory=list)
    name: str = "small"
    splits: tuple[str, ...] = ()
    text_is_private: bool = False
    left_out: tuple[str, ...] = ()

    def documents(self, split):
        return iter(())

    def cluster(self, label):
        return self.clusters[label] if self.clusters else None


@pytest.mark.parametrize(
    ("one", "other", "related"),
    [
        ("icd10cm:E11", "icd10cm:E11.65", True),
        ("icd10cm:E11.6", "icd10cm:E11.65", True),
        ("E11", "E11.65", True),
        ("icd9cm:250.0", "icd9cm:250.00", True),
        ("icd10cm:E11.65", "icd10cm:E11.69", False),
        ("icd9cm:003", "icd9pcs:003.1", False),
        ("zip", "zip2", False),
    ],
)
def test_codes_of_which_one_begins_with_the_other(one, other, related):
    found = kinship(Corpus([one, other], ["first", "second"]))
    assert found(0, 1) == found(1, 0) == related and found(0, 0)


def test_nodes_of_a_taxonomy():
    corpus = Corpus(["a", "b", "c"], ["first", "second", "third"], ["k", "k", "k"])
    above = {"a": ("r",), "b": ("a", "r"), "c": ("r",)}
    corpus.space = LabelSpace("s", [Label(name, name, up) for name, up in above.items()])
    found = kinship(corpus)
    assert found(0, 1) and found(1, 0) and not found(0, 2) and not found(1, 2)


def test_texts_that_hold_one_another_where_there_is_no_taxonomy():
    texts = ["Angina", "Unstable angina", "Angina with spasm", "Anginas", "Vasospasm"]
    found = kinship(Corpus([*"abcde"], texts))
    assert [found(0, other) for other in range(1, 5)] == [True, True, False, False]
    known = kinship(Corpus([*"abcde"], texts, ["k"] * 5))
    assert not known(0, 1)
