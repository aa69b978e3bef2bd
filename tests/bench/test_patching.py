import itertools
import json
from pathlib import Path

import pytest
import torch
from fixtures.tiny_runs import save_model

import workbench.bench.patching as module
import workbench.bench.ways as ways
from workbench.bench.patching import bench, write
from workbench.bench.shapes import SHAPES, random_model, spread
from workbench.bench.ways import random_prompts, spread_evenly
from workbench.errors import InputError

SMALL = {"length": 24, "suffix": 10, "sample": 3, "repeats": 1}
WAYS = ("loop", "forked", "plain_forward", "attribution")
TINY, _ = SHAPES["tiny"]
N_HEADS = TINY.n_layers * TINY.n_heads


@pytest.fixture(scope="module")
def result():
    """Of weights ten times as large, so that a patch moves the logits."""

    def louder(*args, **kwargs):
        model = random_model(*args, **kwargs)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 2:
                    weight.mul_(10)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "random_model", louder)
        yield bench(shape="tiny", device="cpu", **SMALL)


def check_way_times(part):
    for way in WAYS:
        assert "error" not in part[way], part[way]
        assert part[way]["seconds"] > 0


def test_says_what_was_measured_where(result):
    assert result["schema"] == "workbench.bench/1"
    assert result["versions"]["torch"] == torch.__version__
    assert (result["dtype"], result["threads"]) == ("float32", torch.get_num_threads())
    assert result["devices"] and all(result["devices"])
    assert result["forked"] is True
    assert result["model"]["shape"] == result["model"]["name"] == "tiny"
    assert result["model"]["weights_sha256"] == "random"
    assert result["model"]["n_layers"] == TINY.n_layers
    assert {name: result[name] for name in SMALL} == SMALL
    assert list(result["positions"]) == ["decision", "span"]


@pytest.mark.parametrize(("kind", "patched"), [("decision", 1), ("span", 10)])
def test_every_way_is_timed_and_ratios_are_those_of_the_seconds(result, kind, patched):
    part = result["positions"][kind]
    check_way_times(part)
    assert (part["heads"], part["patched_positions"]) == (N_HEADS, patched)
    assert (part["loop"]["sampled_heads"], part["loop"]["extrapolated"]) == (3, True)
    assert part["forked"]["peak_bytes"] is None
    assert part["forked"]["pack_tokens"] == 1024
    assert part["plain_forward"]["tokens"] == 24 + N_HEADS * patched
    seconds = {way: part[way]["seconds"] for way in WAYS}
    assert part["loop"]["seconds"] == pytest.approx(part["loop"]["seconds_per_head"] * N_HEADS)
    assert part["loop_over_forked"] == pytest.approx(seconds["loop"] / seconds["forked"])
    assert part["forked_over_plain"] == pytest.approx(seconds["forked"] / seconds["plain_forward"])
    assert part["loop_over_attribution"] == pytest.approx(seconds["loop"] / seconds["attribution"])


def test_forked_logits_are_those_of_the_loop(result):
    for part in result["positions"].values():
        assert part["max_difference"] <= 1e-4
        assert part["max_effect"] > 1e-2  # the comparison is of patched runs
        assert part["max_logit"] > 0.1


def test_result_survives_json_in_its_order(result, tmp_path):
    path = tmp_path / "new" / "bench.json"
    write(result, path)
    assert json.dumps(json.loads(path.read_text(encoding="utf-8"))) == json.dumps(result)
    write({"schema": "other"}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"schema": "other"}
    assert [entry.name for entry in path.parent.iterdir()] == ["bench.json"]


def test_unwritable_path_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write({}, tmp_path / "file" / "bench.json")


def test_gpt2_folder(tmp_path):
    folder = save_model("gpt2", tmp_path / "gpt2")
    result = bench(model=folder, device="cpu", **SMALL)
    assert result["model"]["architecture"] == "GPT2LMHeadModel"
    assert (result["model"]["name"], result["model"]["shape"]) == ("gpt2", None)
    assert len(result["model"]["weights_sha256"]) == 64
    for part in result["positions"].values():
        check_way_times(part)
        assert part["max_difference"] <= 1e-4
        assert part["max_effect"] > 1e-3


def test_every_head_is_patched_by_itself_in_both_positions(monkeypatch):
    calls = []

    def counting(model, base, source, groups, **kwargs):
        calls.append((source.shape[1], [list(group) for group in groups], kwargs.get("tokens")))
        return patch_heads(model, base, source, groups, **kwargs)

    patch_heads = ways.patch_heads
    monkeypatch.setattr(ways, "patch_heads", counting)
    bench(shape="tiny", device="cpu", **SMALL)
    every = [[head] for head in itertools.product(range(TINY.n_layers), range(TINY.n_heads))]
    for patched in (1, SMALL["suffix"]):
        timed = [call for call in calls if call[0] == patched and call[2] is not None]
        assert len(timed) == 1 + SMALL["repeats"]  # a warm-up before
        assert all(groups == every and len(set(options)) == 10 for _, groups, options in timed)
        [compared] = [groups for at, groups, options in calls if at == patched and options is None]
        assert [compared[0], compared[-1]] == [every[0], every[-1]] and len(compared) == 3


def test_a_way_that_is_refused_leaves_the_others(monkeypatch):
    def refuse(*args, **kwargs):
        raise ValueError("not on this architecture\nsecond line")

    monkeypatch.setattr(ways, "cache_activation_and_gradient", refuse)
    monkeypatch.setattr(ways, "generic_activation_patch", refuse)
    result = bench(shape="tiny", device="cpu", positions=["decision"], **SMALL)
    part = result["positions"]["decision"]
    assert part["loop"] == part["attribution"] == {"error": "not on this architecture"}
    assert part["forked"]["seconds"] > 0 and part["plain_forward"]["seconds"] > 0
    assert part["forked_over_plain"] > 0
    for name in ("loop_over_forked", "loop_over_attribution", "max_difference"):
        assert part[name] is None
    json.dumps(result, allow_nan=False)


def test_plain_forward_runs_rows_when_the_context_is_short(tmp_path, monkeypatch):
    """A context of 64 is less than the prompt and the heads of a decision together."""
    folder = save_model("gpt2", tmp_path / "gpt2")
    monkeypatch.setitem(ways.START_TOKENS, "cpu", 20)
    arguments = SMALL | {"length": 60, "suffix": 10}
    parts = bench(model=folder, device="cpu", **arguments)["positions"]
    decision, span = (parts[kind]["plain_forward"] for kind in ("decision", "span"))
    assert (decision["tokens"], decision["timed_tokens"]) == (60 + 8, 2 * 64)
    assert decision["extrapolated"] is False
    assert (span["tokens"], span["timed_tokens"]) == (60 + 8 * 10, 2 * 20)
    assert span["extrapolated"] is True


def test_spread_model_is_measured(monkeypatch):
    """Hooks that move activations between devices, all on the CPU, disturb no way."""

    def dispatched(*args, **kwargs):
        return spread(random_model(*args, **kwargs), {"model": "cpu", "lm_head": "cpu"})

    monkeypatch.setattr(module, "random_model", dispatched)
    result = bench(shape="tiny", device="cpu", positions=["decision"], **SMALL)
    check_way_times(result["positions"]["decision"])
    assert result["forked"] is True
    assert result["positions"]["decision"]["max_difference"] <= 1e-4


def test_progress_names_every_way(capsys):
    bench(shape="tiny", device="cpu", positions=["span"], reporter=module.Reporter(), **SMALL)
    said = capsys.readouterr().err
    for words in ("loading tiny", "span: loop", "span: forked", "span: plain forward"):
        assert f"{words}: finished" in said
    assert "it/s" not in said  # no second bar by the library


def test_random_prompts_share_the_suffix_alone():
    for shared in (0, 6):
        base, other = random_prompts(5, 40, shared)
        same = [a == b for a, b in zip(base, other, strict=True)]
        assert same == [False] * (40 - shared) + [True] * shared
        assert {*base, *other} <= set(range(5))
    assert random_prompts(5, 40, 6) == random_prompts(5, 40, 6)


def test_spread_evenly_keeps_both_ends():
    assert spread_evenly(range(10), 4) == [0, 3, 6, 9]
    assert spread_evenly(range(3), 8) == [0, 1, 2]
    assert spread_evenly(range(10), 1) == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "somewhere", "shape": "tiny"}, "either a model or a shape"),
        ({"shape": "huge"}, "shape 'huge'"),
        ({"model": Path("/no/such/folder")}, "does not exist"),
        ({"positions": ["middle"]}, "input should be 'decision' or 'span', got 'middle'"),
        ({"positions": []}, "too few: needs at least 1"),
        ({"positions": ["span", "span"]}, "name each once"),
        ({"length": 24, "suffix": 24}, "suffix is 24, must be below the length of 24"),
        ({"length": 24, "suffix": 30}, "suffix is 30"),
        ({"sample": 0}, "sample is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"shape": "tiny", "dtype": "int8"}, "dtype 'int8'"),
        ({"shape": "tiny", "length": 9000}, "takes 8192 tokens"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        bench(**arguments)
