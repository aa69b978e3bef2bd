import json

import pandas as pd
import pytest
import torch
from safetensors import safe_open

import workbench as wb
from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.patching import EventCache, baseline, sweep
from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.analysis.statistics import Halves
from workbench.headsets.pooling import pool_heads
from workbench.labels.icd10cm import category, load_icd10cm
from workbench.models.hooks import replace_z
from workbench.organism.card import model_card
from workbench.prompts.coding import split_categories


@pytest.fixture(scope="module")
def folder():
    return wb.bundled_model_path()


@pytest.fixture(scope="module")
def model(folder):
    return wb.HookedModel.load(folder)


@pytest.fixture(scope="module")
def prompts():
    return wb.make_prompts(n_prompts=12)


def test_weights_are_bfloat16_and_small(folder):
    path = folder / "model.safetensors"
    assert path.stat().st_size <= 16 * 2**20
    with safe_open(path, "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_the_card_is_the_one_of_the_record(folder):
    record = json.loads((folder / "training.json").read_text())
    assert (folder / "README.md").read_text() == model_card(record)


def test_default_prompts_are_of_unseen_categories(prompts):
    labels = {option.label for event in prompts for option in event.options}
    _, unseen = split_categories(load_icd10cm())
    assert {category(label) for label in labels} <= set(unseen)


def test_it_does_the_task_and_the_counterfactuals_move_it(model, prompts):
    means = {}
    for name in ("clean", "far", "near"):
        runs = model.run([event.variant(name) for event in prompts])
        pairs = [
            focus_confusion(select_options(run.logits, event), Roles.of(event))
            for run, event in zip(runs, prompts, strict=True)
        ]
        means[name] = [torch.stack(values).mean().item() for values in zip(*pairs, strict=True)]
    assert means["clean"][0] > 0.9 and means["clean"][1] < 0.3
    assert means["far"][0] < 0.2
    assert means["near"][1] > 0.7


@pytest.mark.parametrize("positions", ["decision", "span"])
def test_patching_equals_one_forward_a_head(model, prompts, positions):
    event = prompts.events[0]
    source = EventCache.of(model, event).source("clean", positions)
    heads = [(layer, 3 * layer % model.info.n_heads) for layer in range(model.info.n_layers)]
    got = wb.patch_heads(model, event.far, source, [[at] for at in heads])
    length = source.shape[1]
    for row, (layer, head) in zip(got, heads, strict=True):
        hooks = [replace_z(layer, (0, slice(-length, None), head), source[layer, :, head])]
        with torch.no_grad():
            expected = model.bridge.run_with_hooks(torch.tensor([event.far]), fwd_hooks=hooks)
        torch.testing.assert_close(row, expected[0, -1], atol=1e-4, rtol=0)


def test_its_chief_head_carries_the_label_and_is_called_a_carrier(model):
    """A sibling's value restores the Focus as gold's does; but the far prompt answers the sibling.

    Its score is taken for granted: whether it is nominated is another matter.
    """
    prompts = wb.make_prompts(n_prompts=16)
    halves = Halves(frozenset(prompts.prompt_ids), frozenset())
    base = baseline(model, prompts, halves)
    runs = ("far_with_clean", "near_with_clean", "far_with_near")
    events = pd.concat(
        sweep(model, prompts, [(3, 0)], ["span"], halves=halves, runs_of=lambda event: runs)
    )
    effects = causal_effects(events, base, halves=("choose",), n_resamples=200)
    table = effects.set_index("measure")
    assert 0.2 < table.loc["label_swap", "effect"] < 0.55
    assert table.loc["label_swap", "low"] > 0.05
    assert table.loc["cluster_minus_restore_margin", "high"] > 0
    scores = pd.DataFrame({"layer": [3], "head": [0], "coarse_q": [0.0], "refine_q": [0.0]})
    assert pool_heads(scores, effects)["pool"].tolist() == ["carrier"]
