import json
import shutil
import sys
from importlib.metadata import version

import pytest

from workbench.labels import load_icd10cm
from workbench.labels.icd10cm import category


@pytest.fixture(scope="module")
def icd_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def space(icd_cache):
    """All of it, not the few categories that other tests make do with."""
    return load_icd10cm(icd_cache)


@pytest.fixture
def rows(monkeypatch):
    """What parsing the package of the labels gives."""
    rows = [["E11.65", "some text", ["E11.6", "E11"], []]]
    monkeypatch.setattr("workbench.labels.icd10cm._parse_package", lambda: rows)
    return rows


def test_every_leaf_code_once(space):
    assert version("simple-icd-10-cm") == "1.5.0", "the count below is of the pinned release"
    assert len(space) == len(set(space.ids)) == 74_719


def test_a_code_has_its_text_inclusion_terms_and_parents_nearest_first(space):
    assert space["E11.65"].text == "Type 2 diabetes mellitus with hyperglycemia"
    assert space["I10"].text == "Essential (primary) hypertension"
    assert space["S52.501A"].ancestors == ("S52.501", "S52.50", "S52.5", "S52")
    nephropathy = space["E11.21"]
    assert "Type 2 diabetes mellitus with Kimmelstiel-Wilson disease" in nephropathy.synonyms


def test_only_leaves_are_labels(space):
    assert "E11" not in space
    assert "E11.6" not in space
    assert set(space.members("E11.6")) < set(space.members("E11"))


def test_a_category_without_codes_below_it_is_its_own_ancestor(space):
    assert space["I10"].ancestors == ("I10",)
    assert space.cluster("I10") == "I10"


def test_last_ancestor_is_the_category(space):
    assert all(label.ancestors[-1] == category(label.id) for label in space)


def test_second_load_reads_the_cache_alone(space, icd_cache, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    assert load_icd10cm(icd_cache) is space
    shutil.copytree(icd_cache, tmp_path, dirs_exist_ok=True)  # as another process finds it
    again = load_icd10cm(tmp_path)
    assert again is not space and list(again) == list(space)


def test_cluster_size_is_not_cached(icd_cache, space):
    assert space.cluster("E11.641") == "E11.6"
    assert load_icd10cm(icd_cache, min_cluster_size=1).cluster("E11.641") == "E11.64"


@pytest.mark.parametrize("content", [b'[["E11.65", "Type', b"", b"\xff\xfe", b"7"])
def test_damaged_cache_is_built_again(rows, tmp_path, content):
    load_icd10cm(tmp_path)
    (cache,) = tmp_path.iterdir()
    cache.write_bytes(content)
    assert load_icd10cm(tmp_path).ids == ["E11.65"]
    assert json.loads(cache.read_text()) == rows


@pytest.mark.usefixtures("rows")
def test_cache_that_cannot_be_written_is_no_error(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert load_icd10cm(in_the_way).ids == ["E11.65"]
