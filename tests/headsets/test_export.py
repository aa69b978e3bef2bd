import json

import pytest
import yaml
from fixtures.headsets import head_record, headset_document, model_record

from workbench.errors import InputError
from workbench.headsets.export import export, to_eap_ig, to_list, to_qrhead_yaml
from workbench.headsets.headset import HeadSet, parse
from workbench.headsets.records import BaseInfo


def headset(heads, n_layers=2, name="someone/Tiny-2L") -> HeadSet:
    """`heads` as (layer, head, pool, weight) in a model of two heads a layer."""
    model = model_record(n_layers, 2, 1, d_model=16, name=name)
    return parse(json.dumps(headset_document(model, [head_record(*head) for head in heads])))


TWO_POOLS = [(0, 1, "coarse", 0.25), (1, 0, "refine", 1.0), (1, 1, "coarse", 0.75)]


def test_list_is_coarse_then_refine_strongest_first():
    assert to_list(headset(TWO_POOLS)) == ["1-1", "0-1", "1-0"]
    assert to_list(headset(TWO_POOLS), "coarse") == ["1-1", "0-1"]
    assert to_list(headset(TWO_POOLS), "refine") == ["1-0"]
    assert to_list(headset([])) == []


def test_qrhead_configuration_survives_odd_names():
    name = 'C:\\models\\a "b": #ü/'
    assert yaml.safe_load(to_qrhead_yaml(headset(TWO_POOLS, name=name))) == {
        "attn_head_set": "1-1,0-1,1-0",
        "model_base_class": 'C:\\models\\a "b": #ü',
        "model_name_or_path": name,
    }


def test_qrheads_base_class_is_the_base_of_an_adapter():
    found = headset([(0, 1, "coarse", 1.0)])
    base = {"name": "org/Base-1B", "revision": None, "weights_sha256": "b" * 64}
    model = found.model.model_copy(update={"base": BaseInfo(**base)})
    written = yaml.safe_load(to_qrhead_yaml(found.model_copy(update={"model": model})))
    assert written["model_base_class"] == "Base-1B"
    assert written["model_name_or_path"] == "someone/Tiny-2L"


def test_qrhead_cannot_hold_an_empty_pool():
    coarse_only = headset([(0, 1, "coarse", 1.0)])
    with pytest.raises(InputError, match="'someone/Tiny-2L': pool refine holds no head"):
        to_qrhead_yaml(coarse_only, "refine")


def test_eap_ig_graph_of_one_head():
    graph = to_eap_ig(headset([(1, 0, "coarse", 1.0)]))
    assert graph["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 16}
    assert graph["nodes"] == {
        "input": {"in_graph": True},
        "a0.h0": {"in_graph": False, "score": 0.0},
        "a0.h1": {"in_graph": False, "score": 0.0},
        "m0": {"in_graph": True},
        "a1.h0": {"in_graph": True, "score": 1.0},
        "a1.h1": {"in_graph": False, "score": 0.0},
        "m1": {"in_graph": True},
        "logits": {"in_graph": True},
    }
    assert all(edge == {"score": 0.0, "in_graph": True} for edge in graph["edges"].values())
    assert list(graph["edges"]) == [
        "input->m0",
        "input->a1.h0<q>",
        "input->a1.h0<k>",
        "input->a1.h0<v>",
        "m0->a1.h0<q>",
        "m0->a1.h0<k>",
        "m0->a1.h0<v>",
        "input->m1",
        "m0->m1",
        "a1.h0->m1",
        "input->logits",
        "m0->logits",
        "a1.h0->logits",
        "m1->logits",
    ]


def test_eap_ig_parallel_mlp_does_not_read_its_own_layers_heads():
    one = headset([(1, 0, "coarse", 1.0)])
    serial = to_eap_ig(one)["edges"]
    parallel = to_eap_ig(one, parallel_attn_mlp=True)
    assert parallel["cfg"]["parallel_attn_mlp"] is True
    assert set(serial) - set(parallel["edges"]) == {"a1.h0->m1"}


def test_eap_ig_head_of_weight_zero_is_in_the_graph():
    assert to_eap_ig(headset([(0, 0, "coarse", 0.0), (0, 1, "coarse", 1.0)]))["nodes"]["a0.h0"] == {
        "in_graph": True,
        "score": 0.0,
    }


def test_export_writes_each_form(tmp_path):
    heads = headset(TWO_POOLS)
    export(heads, tmp_path / "out" / "heads.txt", "list", "coarse")
    assert (tmp_path / "out" / "heads.txt").read_text() == "1-1\n0-1\n"
    export(heads, tmp_path / "heads.yaml", "qrhead", "coarse")
    assert (tmp_path / "heads.yaml").read_text() == (
        'attn_head_set: "1-1,0-1"\n'
        'model_base_class: "Tiny-2L"\n'
        'model_name_or_path: "someone/Tiny-2L"\n'
    )
    export(heads, tmp_path / "graph.json", "eap-ig", "refine")
    assert json.loads((tmp_path / "graph.json").read_text()) == to_eap_ig(heads, "refine")


def test_unknown_forms_and_pools_are_named(tmp_path):
    heads = headset(TWO_POOLS)
    with pytest.raises(InputError, match="form 'pickle' is not one of eap-ig, list, qrhead"):
        export(heads, tmp_path / "heads", "pickle")
    with pytest.raises(InputError, match="pool 'fine' is not one of coarse, refine"):
        export(heads, tmp_path / "heads", "list", "fine")
    assert not list(tmp_path.iterdir())
