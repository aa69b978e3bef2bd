"""What one head does on one event, against direct computations."""

import numpy as np
import pytest
import torch
from fixtures.architectures import build

from workbench.analysis.looks.look import FIRST, REST, Looks, look, region_of_tokens
from workbench.errors import InputError
from workbench.models.hooked import HookedModel


@pytest.fixture(scope="module")
def looks(model, event):
    return Looks.of(model, event)


def test_heads_mlps_and_embedding_sum_to_the_logits(model, event, looks):
    layers = range(model.info.n_layers)
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{at}.hook_mlp_out" for at in layers)]
    [run] = model.run([event.clean], names)
    others = sum(looks.straight(run.activations[name][-1]) for name in names)
    total = looks.writes.sum(dim=(0, 1)) + others + looks.straight.constant
    torch.testing.assert_close(total, run.logits[event.option_tokens], atol=1e-4, rtol=0)


def test_attention_is_that_of_the_pattern(model, event, looks):
    [run] = model.run([event.clean], ["blocks.1.attn.hook_pattern"])
    pattern = run.activations["blocks.1.attn.hook_pattern"].numpy()
    seen = looks.look("1-2")
    places = [place for _, place in seen.queries]
    assert places[0] == len(event.clean) - 1
    np.testing.assert_allclose(seen.weights, pattern[2][places], atol=1e-6)
    np.testing.assert_allclose(looks.row((1, 2), 9), pattern[2, 9], atol=1e-3)
    small = Looks.of(model, event, most_bytes=0)
    assert not small.patterns
    np.testing.assert_allclose(small.row("1-2", 9), pattern[2, 9], atol=1e-6)
    [start, end] = event.options[0].span
    by_hand = pattern[2, start:end, slice(*event.evidence)].sum(axis=-1).mean()
    assert seen.options["reads_evidence"][0] == pytest.approx(by_hand, abs=1e-6)
    decision = pattern[2, -1, start:end].sum()
    assert seen.options["read_at_decision"][0] == pytest.approx(decision, abs=1e-6)
    assert seen.summary.loc["decision", "gold"] == pytest.approx(decision, abs=1e-6)


def test_rows_of_the_summary_sum_to_one(event, looks):
    seen = looks.look((2, 3))
    np.testing.assert_allclose(seen.summary.sum(axis="columns"), 1, atol=1e-5)
    assert FIRST not in seen.summary.index
    assert FIRST in seen.summary
    regions = region_of_tokens(event)
    assert regions[: event.evidence[1]] == [FIRST, "evidence", "evidence", "evidence"]
    assert regions[-1] == "decision"
    assert regions[event.evidence[1]] == REST


def test_what_heads_share_is_said(looks):
    assert looks.look("0-3").kv_head == 1
    assert looks.look("0-3").notes == ("shares its keys and values with 0-2",)


@pytest.mark.parametrize("kind", ["gpt2", "granite"])
def test_other_norms_and_factors(kind, make_event):
    """A head of the last layer, taken away at the decision, takes away what it writes."""
    model = HookedModel.from_pretrained_model(build(kind))
    event = make_event()
    looks = Looks.of(model, event)
    [run] = model.run([event.clean], ["blocks.2.hook_resid_post", "blocks.2.attn.hook_z"])
    own = looks.straight(run.activations["blocks.2.hook_resid_post"][-1])
    torch.testing.assert_close(own + looks.straight.constant, looks.logits, atol=1e-4, rtol=0)
    z = run.activations["blocks.2.attn.hook_z"][-1, 1]
    added = model.ways[2].factor * model.ways[2].carry * (z @ model.output_weights()[2, 1])
    torch.testing.assert_close(looks.writes[2, 1], looks.straight(added), atol=1e-5, rtol=1e-4)


def test_logits_that_are_capped_are_not_explained(make_event):
    seen = look(HookedModel.from_pretrained_model(build("gemma2")), make_event(), "1-0")
    assert seen.options["logit"].isna().all()
    assert any("not known" in note for note in seen.notes)
    assert seen.weights.sum(axis=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("head", ["3-x", (1, -1), "9"])
def test_no_head(model, event, head):
    with pytest.raises(InputError, match='give "3-0"'):
        look(model, event, head)


def test_heads_and_positions_that_are_not_there(model, event, looks):
    with pytest.raises(InputError, match="layer 7"):
        look(model, event, "7-0")
    with pytest.raises(InputError, match="position 900"):
        looks.row("0-0", 900)
