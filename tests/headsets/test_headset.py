import copy
import json
from pathlib import Path

import jsonschema
import pytest
from fixtures.headsets import head_record, headset_document, model_record
from fixtures.mutations import mutants
from pydantic import ValidationError

from workbench.errors import InputError
from workbench.headsets.headset import (
    check_model,
    describe_prompts,
    load,
    parse,
    save,
    write_schema,
)
from workbench.headsets.records import HeadScores

COMMITTED_SCHEMA = Path(__file__).parents[2] / "data" / "headset.schema.json"
SHAPE = {
    "n_layers": 8,
    "n_heads": 8,
    "n_kv_heads": 4,
    "d_model": 256,
    "architecture": "LlamaForCausalLM",
}


def effect(value=0.5, **more):
    return {"effect": value, "low": 0.25, "high": 0.75, "n": 40, **more}


def head(layer, number, pool, weight=1.0):
    values = [0.32, 0.001, -0.5, None, 0.0, 1.5]
    scores = dict(zip(HeadScores.model_fields, values, strict=True))
    effects = {"coarse_restore": effect(0.96), "refine_reduce": effect()}
    return head_record(layer, number, pool, weight, scores=scores, effects=effects)


@pytest.fixture
def document():
    pool = {
        "pool": "coarse",
        "heads": ["4-3", "5-7"],
        "effects": {"coarse_restore": effect()},
        "controls": {
            "random": {"coarse_restore": effect(0.01, draws=3)},
            "norm": {"coarse_restore": effect(0.02, draws=1)},
        },
    }
    model = model_record(**SHAPE, revision="abc", weights_sha256="a" * 64)
    heads = [head(4, 3, "coarse", 0.75), head(5, 0, "refine"), head(5, 7, "coarse", 0.25)]
    tokenizer = {"sha256": None, "template": "direct", "special_tokens": {"bos": "<s>"}}
    return copy.deepcopy(headset_document(model, heads, pools=[pool], tokenizer=tokenizer))


def changed(document, path, value):
    """A copy with the value at a path of keys replaced, or set where there was none."""
    result = copy.deepcopy(document)
    *parents, last = path
    target = result
    for step in parents:
        target = target[step]
    target[last] = value
    return result


def message(document):
    with pytest.raises(InputError) as caught:
        parse(json.dumps(document), "f.json")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_file_holds_what_was_read_and_reads_back_equal(document, tmp_path):
    headset = parse(json.dumps(document))
    save(headset, tmp_path / "new" / "headset.json")
    written = json.loads((tmp_path / "new" / "headset.json").read_text())
    # What is found out later may be missing in a file, and is then written as missing.
    later = [
        head.pop(name) for head in written["heads"] for name in ("chosen_share", "passed_share")
    ]
    assert written["method"].pop("rules") == {}
    later.append(written["method"].pop("engine"))
    later += [written["model"].pop(name) for name in ("base", "adapter", "quantisation")]
    later += [area for pool in written["pools"] for area in pool.pop("areas")]
    assert written == document and set(later) <= {None}
    assert load(tmp_path / "new" / "headset.json") == headset


def margin(measure, low):
    return {measure: {"effect": low + 0.1, "low": low, "high": low + 0.2, "n": 40}}


def test_every_pool_and_the_rule_that_made_it_survive_the_file(document, tmp_path):
    pools = ("coarse", "refine", "carrier", "mover", "suppressor")
    document["heads"] = [
        head(4, at, pool) | {"passed_share": 0.25} for at, pool in enumerate(pools)
    ]
    document["method"]["rules"] = dict.fromkeys(pools, "margins") | {"coarse": "coarse_chain"}
    document["pools"] = []
    headset = parse(json.dumps(document))
    save(headset, tmp_path / "h.json")
    assert load(tmp_path / "h.json") == headset
    assert [len(headset.in_pool(pool)) for pool in pools] == [1] * 5
    assert headset.method.rules["coarse"] == "coarse_chain"
    assert "heads[0].pool: input should be" in message(
        changed(document, ("heads", 0, "pool"), "early")
    )


def test_a_file_from_before_the_other_pools_is_read_and_used_as_it_says():
    """The head set of the reasoner that comes with the package."""
    shipped = Path(__file__).parents[2] / "data" / "results" / "reasoner" / "headset.json"
    headset = load(shipped)
    for phase in ("coarse", "refine"):
        assert headset.of_phase(phase) == headset.in_pool(phase) != ()


def test_label_carriers_do_the_work_of_both_phases_where_they_act(document):
    reduces, restores = "refine_reduce_margin", "coarse_restore_margin"
    acts = margin(reduces, 0.2) | margin(restores, 0.1)
    idle = margin(reduces, -0.05) | margin(restores, 0.5)
    document["heads"] = [
        head(3, 0, "carrier", 0.5) | {"effects": acts},
        head(3, 1, "carrier", 0.5) | {"effects": idle},
        head(4, 3, "refine", 1.0) | {"effects": margin(reduces, 0.5)},
        head(5, 0, "mover"),
        head(5, 1, "suppressor"),
    ]
    document["pools"] = []
    headset = parse(json.dumps(document))
    coarse, refine = (
        {(one.layer, one.head): one.weight for one in headset.of_phase(phase)}
        for phase in ("coarse", "refine")
    )
    assert coarse == pytest.approx({(3, 1): 0.6 / 0.8, (3, 0): 0.2 / 0.8})
    assert refine == pytest.approx({(4, 3): 0.6 / 0.9, (3, 0): 0.3 / 0.9})
    assert {one.pool for one in headset.of_phase("refine")} == {"refine"}
    # Effects that a file does not say weigh the same.
    document["heads"][2]["effects"] = {}
    weights = {one.weight for one in parse(json.dumps(document)).of_phase("refine")}
    assert weights == {0.5}


def test_head_set_cannot_be_changed(document):
    headset = parse(json.dumps(document))
    with pytest.raises(ValidationError, match="frozen"):
        headset.heads[0].weight = 0.5


def test_failed_write_leaves_the_old_file_and_nothing_else(document, tmp_path, monkeypatch):
    path = tmp_path / "headset.json"
    path.write_text("old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="cannot be written, disk full"):
        save(parse(json.dumps(document)), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


REFUSALS = [
    (
        ("schema",),
        "workbench.headset/2",
        "schema: is 'workbench.headset/2', this workbench reads 'workbench.headset/1'",
    ),
    (("heads", 1, "colour"), "red", "heads[1].colour: unknown key"),
    (("heads", 0, "layer"), 8, "heads[0].layer: 8 is not below n_layers 8"),
    (
        ("heads", 0, "layer"),
        -1,
        "heads[0].layer: input should be greater than or equal to 0, got -1",
    ),
    (("heads", 2, "head"), 8, "heads[2].head: 8 is not below n_heads 8"),
    (("heads", 0, "kv_head"), 3, "heads[0].kv_head: 3, but head 3 reads 1"),
    (("heads", 2), head(4, 3, "coarse"), "heads[2]: head 4-3 is listed twice"),
    (("heads", 0, "weight"), "0.5", "heads[0].weight: input should be a valid number, got '0.5'"),
    (("heads", 0, "scores", "coarse"), float("nan"), "the number 'NaN' is not finite"),
    (("heads", 0, "weight"), 0.7, "heads: weights of pool 'coarse' sum to 0.95, must be 1"),
    (
        ("heads", 0, "scores", "coarse_q"),
        1.5,
        "heads[0].scores.coarse_q: input should be less than or equal to 1, got 1.5",
    ),
    (
        ("heads", 1, "effects", "refine_reduce", "low"),
        0.8,
        "heads[1].effects.refine_reduce.low: 0.8 is above high 0.75",
    ),
    (
        ("pools", 0, "controls", "random", "coarse_restore", "high"),
        0.2,
        "pools[0].controls.random.coarse_restore.low: 0.25 is above high 0.2",
    ),
    (
        ("heads", 1, "effects", "refine_reduce", "low"),
        None,
        "heads[1].effects.refine_reduce: has one end of an interval; give both, or null",
    ),
    (
        ("pools", 0, "effects", "coarse_restore", "n"),
        0,
        "pools[0].effects.coarse_restore.n: is 0, but there is an effect",
    ),
    (
        ("prompts", "split_seed"),
        -1,
        "prompts.split_seed: input should be greater than or equal to 0, got -1",
    ),
    (("heads", 1, "tasks"), 1.0, "heads[1].tasks: input should be a valid integer, got 1.0"),
    (("heads", 1, "head"), False, "heads[1].head: input should be a valid integer, got False"),
    (("model", "n_kv_heads"), 3, "model.n_kv_heads: 3 does not divide n_heads 8"),
    (("prompts", "n"), 4, "prompts.n: 4 is not n_choose 2 + n_verify 1"),
    (
        ("pools", 0, "heads"),
        ["4-3"],
        "pools[0].heads: lists 4-3, but 'heads' puts 4-3 5-7 into 'coarse'",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "expected"), REFUSALS, ids=[item[2].split(":")[0] for item in REFUSALS]
)
def test_refusal_names_file_key_and_reason(document, path, value, expected):
    assert message(changed(document, path, value)) == f"f.json: {expected}"


def test_missing_key_is_named(document):
    del document["tokenizer"]["template"]
    assert message(document) == "f.json: tokenizer.template: key is missing"


def test_unknown_measure_is_named_without_parser_marks(document):
    text = message(changed(document, ("heads", 0, "effects", "restore"), effect()))
    assert text.startswith("f.json: heads[0].effects.restore: input should be 'coarse_restore',")


def test_other_version_is_reported_before_what_follows_from_it(document):
    document = changed(document, ("a_key_of_version_2",), 1)
    document["schema"] = "workbench.headset/2"
    assert message(document) == (
        "f.json: schema: is 'workbench.headset/2', this workbench reads 'workbench.headset/1' "
        "(and 1 more)"
    )


def test_halves_cannot_be_the_same_prompts(document):
    document["prompts"]["verify_sha256"] = document["prompts"]["choose_sha256"]
    assert message(document).startswith("f.json: prompts.verify_sha256: is that of the selection")


def test_a_byte_order_mark_is_no_matter_and_a_key_twice_is(document, tmp_path):
    text, path = json.dumps(document), tmp_path / "h.json"
    path.write_text(text, encoding="utf-8-sig")
    assert load(path) == parse(text)
    path.write_text('{"heads": [], ' + text[1:])
    with pytest.raises(InputError, match=r"h\.json: key 'heads' occurs twice"):
        load(path)


def test_pool_cannot_be_listed_twice(document):
    document["pools"] *= 2
    assert message(document) == "f.json: pools[1].pool: pool 'coarse' is listed twice"


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read, No such file"):
        load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json: not JSON, column 2: "):
        load(tmp_path / "bad.json")


def test_prompts_are_hashed_whatever_their_order_and_never_listed():
    part = describe_prompts("codes", "b" * 64, ["note 1", "note 2"], ["note 3"], 0)
    again = describe_prompts("codes", "b" * 64, ["note 2", "note 1"], ["note 3"], 0)
    other = describe_prompts("codes", "b" * 64, ["note 1", "note 3"], ["note 2"], 0)
    assert part == again
    assert part["choose_sha256"] != other["choose_sha256"]
    assert "note" not in json.dumps(part)
    with pytest.raises(InputError, match="task 'codes': halves overlap"):
        describe_prompts("codes", "b" * 64, ["p0"], ["p0"], 0)


def test_model_of_the_stated_shape_is_accepted(document):
    headset = parse(json.dumps(document))
    check_model(headset, **SHAPE)
    check_model(headset, **SHAPE, weights_sha256="a" * 64)
    unhashed = parse(json.dumps(changed(document, ("model", "weights_sha256"), None)))
    check_model(unhashed, **SHAPE, weights_sha256="c" * 64)


def test_model_of_another_shape_is_refused_field_by_field(document):
    headset = parse(json.dumps(document))
    with pytest.raises(InputError) as caught:
        check_model(headset, **{**SHAPE, "n_layers": 4, "architecture": "GPT2LMHeadModel"})
    assert str(caught.value) == (
        "head set of 'someone/tiny': n_layers is 8 in the head set, 4 in the model; architecture "
        "is LlamaForCausalLM in the head set, GPT2LMHeadModel in the model"
    )
    with pytest.raises(InputError, match="weights_sha256 is aaaa"):
        check_model(headset, **SHAPE, weights_sha256="c" * 64)


def test_origins_are_compared_where_both_sides_have_them(document):
    base = {"name": "org/base", "revision": "v1", "weights_sha256": "b" * 64}
    adapter = {"name": "adapter", "sha256": "d" * 64, "kind": "LORA", "rank": 16}
    origins = {"base": base, "adapter": adapter, "quantisation": {"Q4_1": 3, "F32": 1}}
    document = changed(document, ("model",), document["model"] | origins)
    headset = parse(json.dumps(document))
    assert parse(headset.model_dump_json()) == headset
    same = {"base_sha256": "b" * 64, "adapter_sha256": "d" * 64}
    check_model(headset, **SHAPE)
    check_model(headset, **SHAPE, **same, quantisation={"F32": 1, "Q4_1": 3})
    for given, field in [
        ({**same, "base_sha256": "c" * 64}, "base.weights_sha256"),
        ({**same, "adapter_sha256": "c" * 64}, "adapter.sha256"),
        ({"quantisation": {"Q8_0": 4}}, "quantisation"),
    ]:
        with pytest.raises(InputError, match=f"{field} is .* in the head set, .* in the model$"):
            check_model(headset, **SHAPE, **given)
    plain = changed(document, ("model",), document["model"] | dict.fromkeys(origins))
    check_model(parse(json.dumps(plain)), **SHAPE, **same, quantisation={"Q8_0": 4})


def test_committed_schema_is_the_models(tmp_path):
    write_schema(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_text() == COMMITTED_SCHEMA.read_text()


def test_schema_accepts_and_refuses_as_the_model_does(document):
    schema = json.loads(COMMITTED_SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(json.loads(parse(json.dumps(document)).model_dump_json()))
    for path, value in [
        (("schema",), "workbench.headset/2"),
        (("heads", 1, "colour"), "red"),
        (("heads", 0, "layer"), -1),
        (("heads", 0, "effects", "restore"), effect()),
        (("pools", 0, "heads"), ["04-3"]),
        (("model", "weights_sha256"), "none"),
    ]:
        assert not validator.is_valid(changed(document, path, value)), path


def test_damaged_head_sets_are_refused_in_one_line(document, tmp_path):
    path, taken = tmp_path / "h.json", []
    for mutant in mutants(document, 250, seed=19):
        path.write_bytes(mutant.content)
        try:
            load(path)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
        else:
            taken.append(mutant)
    # What is left out may be unknown, numbers may be others, and the order says nothing.
    may = {"drop", "rename", "other type", "out of range", "shorter", "swapped"}
    assert {mutant.how for mutant in taken} <= may and len(taken) < 25
    free = ("thresholds", "seeds", "special_tokens", "effects", "controls", "random", "norm")
    for mutant in taken:
        if mutant.how in ("drop", "rename"):
            assert mutant.where[-2] in free
