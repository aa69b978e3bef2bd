import pytest
import torch

from workbench.analysis.curves.qr_heads import qr_scores
from workbench.errors import InputError
from workbench.studies.planted.models import plant


@pytest.mark.parametrize("evidence_first", [True, False])
@pytest.mark.parametrize("readout", ["focus", "confusion"])
def test_mass_from_all_that_follows_the_options_on_the_gold_ones(
    model, make_event, readout, evidence_first
):
    """Three tokens follow the options where evidence comes first, and six where it comes last."""
    events = [make_event(seed, evidence_first=evidence_first) for seed in range(2)]
    found = qr_scores(model, events, readout)
    expected = torch.zeros(3, 4)
    for event in events:
        start = max(option.span[1] for option in event.options)
        assert len(event.clean) - start == (3 if evidence_first else 6)
        right = event.options[: 3 if readout == "focus" else 1]
        keys = [at for option in right for at in range(*option.span)]
        for layer in range(3):
            name = f"blocks.{layer}.attn.hook_pattern"
            [run] = model.run([event.clean], [name])
            rows = run.activations[name][:, start:]
            expected[layer] += rows[:, :, keys].sum(dim=-1).mean(dim=-1) / 2
    torch.testing.assert_close(found.float(), expected)


def test_heads_that_look_at_the_right_option_come_first():
    planted = plant(seed=1, n_prompts=6)
    focus, confusion = (
        qr_scores(planted.model, planted.prompts.events, readout).flatten()
        for readout in ("focus", "confusion")
    )
    at = {name: layer * 4 + head for name, (layer, head) in planted.place.items()}
    assert {*focus.topk(2).indices.tolist()} == {at["coarse_readout"], at["refine_readout"]}
    assert int(confusion.argmax()) == at["refine_readout"]
    assert focus[at["filter"]] < 0.5  # options ask the evidence there, and no query token


def test_what_cannot_be_scored_is_refused(model, prompts):
    with pytest.raises(InputError, match="readout 'loss'"):
        qr_scores(model, prompts.events, "loss")
    with pytest.raises(InputError, match="no event"):
        qr_scores(model, [], "focus")
