import pytest

from workbench.errors import InputError
from workbench.labels import Label, LabelSpace


def codes(*rows: tuple[str, tuple[str, ...]]) -> list[Label]:
    return [Label(label_id, f"text of {label_id}", ancestors) for label_id, ancestors in rows]


@pytest.fixture
def tree() -> LabelSpace:
    """Category A: two codes below A.1, one below A.2. Category B: one code."""
    labels = codes(
        ("A.11", ("A.1", "A")), ("A.12", ("A.1", "A")), ("A.21", ("A.2", "A")), ("B", ("B",))
    )
    return LabelSpace("tree", labels)


def test_labels_come_back_in_the_order_given_and_nodes_are_none(tree):
    assert tree.ids == ["A.11", "A.12", "A.21", "B"]
    assert [label.id for label in tree] == tree.ids
    assert len(tree) == 4
    assert tree["A.12"].text == "text of A.12"
    assert "A.11" in tree
    assert "A.1" not in tree


def test_members_of_a_node_are_all_labels_below_it(tree):
    assert tree.members("A.1") == ("A.11", "A.12")
    assert tree.members("A") == ("A.11", "A.12", "A.21")


@pytest.mark.parametrize(
    ("label", "size", "cluster"),
    [("A.11", 1, "A.1"), ("A.11", 2, "A.1"), ("A.11", 3, "A"), ("A.21", 2, "A"), ("B", 2, "B")],
)
def test_cluster_is_the_nearest_node_large_enough_else_the_top_one(tree, label, size, cluster):
    assert LabelSpace("tree", tree, min_cluster_size=size).cluster(label) == cluster


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "holds no labels"),
        (codes(("A", ("A",)), ("A", ("A",))), "label 'A' occurs twice"),
        (codes(("A", ())), "label 'A' has no taxonomy parent"),
    ],
)
def test_refused_labels(labels, message):
    with pytest.raises(InputError, match=message):
        LabelSpace("tree", labels)


def test_unknown_names_are_refused(tree):
    with pytest.raises(InputError, match=r"^label space 'tree' has no label 'Z'$"):
        tree["Z"]
    with pytest.raises(InputError, match="no label 'Z'"):
        tree.cluster("Z")
    with pytest.raises(InputError, match=r"^label space 'tree' has no taxonomy node 'Z'$"):
        tree.members("Z")
