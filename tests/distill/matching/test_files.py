import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.distillation import shape
from fixtures.headsets import head_record, headset_document, model_record

from workbench.distill.matching.files import folder_shape, heads_for, load, load_heads, save
from workbench.distill.matching.head_map import HeadMap, PooledHead, match_by_depth
from workbench.errors import InputError
from workbench.heads import ModelShape
from workbench.headsets.headset import parse
from workbench.models import loading

PAIR = {"pool": "refine", "teacher": [4, 6], "student": [2, 0], "weight": 0.5}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[HeadMap, Path]:
    heads = [PooledHead(layer=3, head=0, pool="coarse"), PooledHead(layer=4, head=6, pool="refine")]
    headmap = match_by_depth(heads, shape(6), shape(4, 4, 2))
    save(headmap, tmp_path / "headmap.json")
    return headmap, tmp_path / "headmap.json"


def test_a_map_survives_its_file(saved: tuple[HeadMap, Path]):
    headmap, path = saved
    document = json.loads(path.read_text())
    assert document["schema"] == "workbench.headmap/1"
    assert document["pairs"][1] == {
        "pool": "refine",
        "teacher": [4, 6],
        "student": [2, 0],
        "weight": 1.0,
    }
    assert load(path, shape(6), shape(4, 4, 2)) == headmap


def test_a_map_is_refused_for_other_models(saved: tuple[HeadMap, Path]):
    _, path = saved
    with pytest.raises(InputError, match=r"teacher of 6 layers × 8 heads .*, not of 8 layers"):
        load(path, shape(8))
    with pytest.raises(InputError, match=r"student of 4 layers × 4 heads .*, not of 4 layers × 8"):
        load(path, shape(6), shape(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "workbench.headmap/2"}, "schema: .*'workbench.headmap/1'"),
        ({"pairs": []}, "pairs: "),
        ({"pairs.weight": 0.9}, "weights of pool 'coarse' sum to 0.9, must be 1"),
        ({"more": 1}, "more: unknown key"),
        ({"pairs.student": [9, 0]}, r"pairs\[0\].student: head 9-0 is outside 4 layers"),
        ({"pairs": [PAIR, PAIR]}, "teacher head 4-6 is paired twice in pool 'refine'"),
        ({"pairs.pool": "fine"}, r"pairs\[0\].pool: "),
        ({"pairs.teacher": [-1, 6]}, r"pairs\[0\].teacher\[0\]: "),
    ],
)
def test_broken_maps_are_refused_in_one_line(saved, change, message):
    _, path = saved
    document = json.loads(path.read_text())
    for key, value in change.items():
        if key.startswith("pairs."):
            document["pairs"][0][key.removeprefix("pairs.")] = value
        else:
            document[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def heads_in(tmp_path: Path, **document: Any) -> tuple[PooledHead, ...]:
    """Heads of a file that holds this, for a model of 6 layers × 8 heads."""
    config = {"num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4}
    (tmp_path / "model").mkdir()
    write(tmp_path / "model" / "config.json", model_type="llama", **config)
    return heads_for(write(tmp_path / "mine.json", **document), tmp_path / "model")


def write(path: Path, **document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_a_head_set_made_by_hand_is_enough(tmp_path: Path):
    heads = heads_in(
        tmp_path,
        note="from the literature",
        heads=[
            {"layer": 3, "head": 0, "pool": "coarse"},
            {"layer": 4, "head": 6, "pool": "refine", "weight": 0.75, "note": "see paper"},
            {"layer": 4, "head": 3, "pool": "refine", "weight": 0.25},
        ],
    )
    headmap = match_by_depth(heads, shape(6), shape(4))
    assert [pair.teacher for pair in headmap.pairs] == [(3, 0), (4, 6), (4, 3)]
    assert [pair.weight for pair in headmap.pairs] == [1, 0.75, 0.25]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"heads": [{"layer": 1, "pool": "coarse"}]}, r"heads\[0\].head: key is missing"),
        ({"heads": [{"layer": 1, "head": 8, "pool": "coarse"}]}, "head 1-8 is outside"),
        ({"heads": [{"layer": 1, "head": 2, "pool": "x"}]}, r"heads\[0\].pool"),
        ({"heads": []}, "no teacher heads"),
        ({"schema": "workbench.headset/9", "heads": []}, "schema"),
        ({"model": {"n_layers": 8}, "heads": []}, "model.n_layers is 8, the teacher's is 6"),
        (
            {"heads": [{"layer": 1, "head": 1, "pool": "coarse", "wieght": 5}]},
            "wieght: unknown key",
        ),
        ({"heads": [{"layer": True, "head": 1, "pool": "coarse"}]}, r"heads\[0\].layer: .*True"),
        ({"heads": [{"layer": 1, "head": 1.0, "pool": "coarse"}]}, r"heads\[0\].head: .*1.0"),
        ({"heads": [{"layer": 1, "head": 1, "pool": "coarse", "weight": "3"}]}, "weight: .*'3'"),
        ({"heads": [{"layer": 1, "head": 1, "pool": "coarse", "weight": -1}]}, "weight: .*-1"),
        (
            {"heads": [{"layer": 1, "head": 1, "pool": "coarse", "weight": 0}]},
            "weights .* sum to 0",
        ),
        ({"heads": [{"layer": 1, "head": 1, "pool": "coarse"}] * 2}, "head 1-1 is listed twice"),
        ({"heads": [], "colour": 1}, "colour: unknown key"),
        ({"heads": [], "model": {"n_layer": 6}}, "model.n_layer: unknown key"),
        ({"heads": [], "pools": []}, "schema: key is missing"),
        (
            {
                "heads": [
                    {"layer": 1, "head": 1, "pool": "coarse", "weight": 0.1},
                    {"layer": 1, "head": 2, "pool": "coarse"},
                ]
            },
            "pool 'coarse' gives weights to some of its heads only",
        ),
    ],
)
def test_bad_head_files_are_refused(tmp_path: Path, document: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        heads_in(tmp_path, **document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"heads": [], "heads": []}', "key 'heads' occurs twice"),
        ('{"heads": [{"layer": NaN, "head": 1, "pool": "coarse"}]}', "'NaN' is not finite"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "mine.json: input should be an object"),
    ],
)
def test_what_json_leaves_open_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_heads(path, shape(6))


def test_a_byte_order_mark_is_no_matter(tmp_path: Path):
    path = tmp_path / "mine.json"
    text = '{"heads": [{"layer": 3, "head": 0, "pool": "coarse"}]}'
    path.write_text(text, encoding="utf-8-sig")
    assert load_heads(path, shape(6)) == (PooledHead(layer=3, head=0, pool="coarse"),)


def test_a_head_set_and_its_file_give_the_same_map(tmp_path: Path):
    heads = [
        head_record(4, 3, "refine", 0.25),
        head_record(4, 6, "refine", 0.75),
        head_record(3, 0, "coarse", 1.0),
    ]
    document = headset_document(model_record(6, 8, 4), heads)
    headset = parse(json.dumps(document))
    teacher = ModelShape.of(headset.model)
    headmap = match_by_depth(headset, teacher, shape(4))
    paired = {pair.teacher: pair.student for pair in headmap.pairs}
    assert paired == {(3, 0): (1, 0), (4, 6): (2, 0), (4, 3): (2, 2)}
    assert match_by_depth(heads_in(tmp_path, **document), teacher, shape(4)) == headmap
    with pytest.raises(InputError, match="head set is of a model of 6 layers"):
        match_by_depth(headset, shape(8), shape(4))


def test_heads_are_of_the_teacher_in_a_folder(teacher: Path, tmp_path: Path):
    heads = [{"layer": 1, "head": 3, "pool": "refine"}]
    digest = loading.weights_sha256(teacher)
    assert folder_shape(teacher) == shape(2, 4, 2)
    for model in ({}, {"weights_sha256": None}, {"weights_sha256": digest}):
        path = write(tmp_path / "mine.json", heads=heads, model=model)
        assert [(one.layer, one.head) for one in heads_for(path, teacher)] == [(1, 3)]
    path = write(tmp_path / "mine.json", heads=heads, model={"weights_sha256": "f" * 64})
    with pytest.raises(InputError, match=r"mine.json: is of weights f{12}, the teacher has"):
        heads_for(path, teacher)
    (teacher / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="has no 'num_hidden_layers', needed for a head set"):
        heads_for(path, teacher)
