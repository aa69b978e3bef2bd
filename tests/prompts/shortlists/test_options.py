import pytest

from workbench.labels.frame import FrameCorpus
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.shortlists.options import Balance, OptionChooser
from workbench.prompts.shortlists.sizes import ShortlistConfig

CODES = ("E11", "E11.65", "E11.69", "E11.9", "E12.1", "E12.2", "I10")
OTHERS = tuple(f"J{number}" for number in range(20, 40))


@pytest.fixture(scope="module")
def chooser() -> OptionChooser:
    above = {code: (code.split(".")[0], f"chapter {code[0]}", "all") for code in CODES + OTHERS}
    text = {code: f"disease {code}" for code in above} | {"I10": "disease  E12.1"}
    labels = [Label(code, text[code], nodes) for code, nodes in above.items()]
    clusters = tuple(nodes[0] for nodes in above.values())
    corpus = FrameCorpus("s", LabelSpace("s", labels), (), clusters)
    return OptionChooser(corpus, ShortlistConfig(min_df=1))


def test_near_ones_are_of_the_cluster_and_then_of_wider_nodes(chooser):
    near = chooser.near(1)
    assert set(near[:3]) == {0, 2, 3} and set(near[3:]) == {4, 5}


def test_neither_ancestors_nor_descendants_of_right_labels_are_wrong(chooser):
    assert chooser.wrong(range(7), [1], {3}) == [2, 4, 5, 6]
    assert chooser.wrong(range(7), [0], set()) == [4, 5, 6]


def test_no_text_is_offered_twice(chooser):
    assert chooser.distinct([4, 6, 5], [1], 5) == [4, 5]


@pytest.mark.parametrize(
    ("rank", "above", "told", "chosen"),
    [
        (3, 2, {2}, [2, 1, 3, 4]),
        (0, 3, {3}, [0, 1, 2, 3]),
        (8, 0, {5}, [7, 6, 5, 4]),
        (3, 2, {6}, [2, 1, 3, 6]),
        (3, 2, set(), [2, 1, 3, 4]),
    ],
)
def test_far_ones_stand_around_a_rank_and_one_of_them_is_told(chooser, rank, above, told, chosen):
    assert chooser.around(range(8), rank, 4, above, told.__contains__) == chosen


def test_half_of_the_far_ones_come_before_gold_on_average():
    balance, shares = Balance("s"), []
    for number in range(200):
        above = 0 if number % 4 == 0 else round(balance.wanted() * 16)  # nothing is before gold
        balance.add(above, 16)
        shares.append(above / 16)
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.02)
