import json

import pytest

from workbench.bench.distill_batches import make_samples
from workbench.bench.distill_plan import Plan
from workbench.bench.distill_shapes import bench_shapes
from workbench.distill.examples.stream import PLACES, Collator
from workbench.errors import InputError

TINY = Plan("tiny", "tiny", ("cot+logits",), tokens=256, steps=2, heads=2, layers=(2, 1))


def test_made_up_examples_have_every_place():
    batch = Collator()(make_samples(TINY, 1))
    assert PLACES.keys() <= batch.keys()
    assert batch["input_ids"].shape == (1, 256)
    assert int(batch["decisions"].max()) < int(batch["length"])
    assert bool((batch["early"] < batch["decisions"].min()).all())


def test_arms_are_measured_once_and_written_at_once(tmp_path):
    out, said = tmp_path / "shapes.json", []
    bench_shapes(TINY, out, said.append)
    [first] = json.loads(out.read_text())["arms"]
    assert first["tokens_a_second"] > 0 and first["seconds_to_first_step"] > 0
    assert any("training begins" in line for line in said)
    both = Plan(**{**vars(TINY), "arms": ("cot+logits", "phases")})
    result = bench_shapes(both, out, said.append)
    assert result["arms"][0] == first and result["arms"][0]["ratio"] == 1
    assert result["arms"][1]["arm"] == "phases" and result["arms"][1]["ratio"] > 0
    with pytest.raises(InputError, match="benchmark of another plan"):
        bench_shapes(Plan(**{**vars(both), "batch": 2}), out, said.append)


def test_targets_are_made_once_and_trained_on_without_the_teacher(tmp_path):
    out, said = tmp_path / "shapes.json", []
    plan = Plan(**{**vars(TINY), "source": "disk", "arms": ("mechanistic",)})
    with pytest.raises(InputError, match="say where targets are kept"):
        bench_shapes(plan, out, said.append)
    result = bench_shapes(plan, out, said.append, targets=tmp_path / "targets")
    [row] = result["arms"]
    assert row["targets_seconds"] > 0 and row["targets_mib_an_example"] > 0
    assert row["tokens_a_second"] > 0
