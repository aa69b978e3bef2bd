import json

import pytest
from fixtures.headsets import head_record, headset_document, model_record

from workbench.errors import InputError
from workbench.headsets.export import FORMS, export
from workbench.headsets.foreign import read_foreign
from workbench.headsets.headset import parse


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("3-0\n\n4-6\n", ((3, 0), (4, 6))),
        ("4-6, 3-0", ((4, 6), (3, 0))),
        ('["4-6", [3, 0]]', ((4, 6), (3, 0))),
        ('attn_head_set: "4-6,3-0"\nmodel_base_class: "X"\n', ((4, 6), (3, 0))),
        ('{"3-0": [0.4, 0.2], "4-6": [0.9], "1-1": [0.5, 0.0, 0.0]}', ((4, 6), (3, 0), (1, 1))),
        ('{"3-0": [0.09], "4-6": [0.1]}', ((4, 6),)),
    ],
)
def test_lists_of_others_are_read(text, heads, tmp_path):
    path = tmp_path / "heads"
    path.write_text(text)
    found = read_foreign(path)
    assert found is not None and found.heads == heads


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no head"),
        ("3-0\n3-0", "head 3-0 is listed twice"),
        ("3-0\nfour", "is no list of heads"),
        ("attn_head_set: 3\n", "is no list of heads"),
        ("attn_head_set: '3-x'\n", "is not a head"),
        ("a: [1\n", "not YAML, line"),
        ("a: 1\na: 2\n", "gives the key 'a' twice"),
        ('{"3-0": "much"}', "3-0: must be a list of scores"),
        ('{"3-0": [0.01]}', "of means from 0.1 on, names no head"),
        ('{"nodes": {"a0.h1": {}}}', r"nodes\.a0\.h1\.in_graph must be"),
        ('["x"]', "is not a head"),
        ("{", "not JSON"),
    ],
)
def test_damaged_lists_are_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "heads.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_foreign(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_our_own_files_are_left_to_others(tmp_path):
    path = tmp_path / "heads.json"
    path.write_text(json.dumps({"heads": [{"layer": 0, "head": 1, "pool": "coarse"}]}))
    assert read_foreign(path) is None


@pytest.mark.parametrize("form", FORMS)
def test_what_is_exported_is_read_back(form, tmp_path):
    heads = [(0, 1, "coarse", 0.25), (1, 0, "refine", 1.0), (1, 1, "coarse", 0.75)]
    model = model_record(2, 2, 1, d_model=16, name="someone/Tiny-2L")
    headset = parse(json.dumps(headset_document(model, [head_record(*one) for one in heads])))
    export(headset, tmp_path / "heads", form, "coarse")
    found = read_foreign(tmp_path / "heads")
    assert found is not None and found.heads == ((1, 1), (0, 1))
    assert found.n_layers == (2 if form == "eap-ig" else None)
