import pytest
import torch

from workbench.analysis.patching.patching import baseline
from workbench.analysis.statistics import split_half
from workbench.errors import InputError
from workbench.studies.planted.kinds import KINDS
from workbench.studies.planted.models import plant


@pytest.mark.parametrize("shape", [(2, 8, 4), (4, 6, 6)])
def test_model_does_the_task_and_both_counterfactuals_move_it(shape):
    planted = plant(3, *shape, n_prompts=6)
    table = baseline(planted.model, planted.prompts, split_half(planted.prompts.prompt_ids))
    means = table.groupby("variant")[["focus", "confusion"]].mean()
    assert table["counts_far"].all()
    assert table["counts_near"].all()
    assert means.loc["clean", "focus"] > 0.99
    assert means.loc["clean", "confusion"] < 0.1
    assert means.loc["far", "focus"] < 0.01
    assert means.loc["near", "focus"] > 0.99
    assert means.loc["near", "confusion"] > 0.9


@pytest.mark.parametrize(
    ("role", "focus", "confusion"),
    [
        ("filter", 1 / 3, 0.05),  # no cluster stands out: chance, but for the label's own gain
        ("coarse_readout", 1 / 3, 0.05),
        ("match", 1, 2 / 3),  # the right cluster, and inside it chance
        ("refine_readout", 1, 2 / 3),
    ],
)
def test_each_planted_head_is_needed_for_its_phase_alone(role, focus, confusion):
    planted = plant(1, 3, 4, n_prompts=8, without=[role])
    table = baseline(planted.model, planted.prompts, split_half(planted.prompts.prompt_ids))
    clean = table[table["variant"] == "clean"]
    assert clean["confusion"].mean() == pytest.approx(confusion, abs=0.1)
    if focus == 1:
        assert clean["focus"].mean() > 0.99
    else:
        # The label alone gains 4 to 5 logits, which lifts its cluster's share too.
        assert clean["focus"].mean() < 0.97


@pytest.mark.parametrize("role", ["twin", "copier"])
def test_distractors_that_write_where_nothing_reads_change_no_logit(role):
    with_it, without = plant(2, 3, 4), plant(2, 3, 4, without=[role])
    prompts = [event.clean for event in with_it.prompts][:4]
    runs = zip(with_it.model.run(prompts), without.model.run(prompts), strict=True)
    # Only random heads of later layers can pass anything on: far less than the 4 logits of a label.
    assert max(float((one.logits - other.logits).abs().max()) for one, other in runs) < 1


def test_twin_attends_as_the_filter_does_and_shares_its_keys_when_they_are_shared():
    for groups in (4, 8):
        planted = plant(4, 4, 8, groups)
        event = planted.prompts.events[0]
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(4)]
        [run] = planted.model.run([event.clean], names)
        [twin] = [
            (layer, head)
            for layer, head in planted.decoys
            for other in planted.pools["coarse"]
            if _pattern_gap(run, (layer, head), other, len(event.options)) < 0.02
        ]
        if groups == 4:
            assert any(
                (layer, head // 2) == (twin[0], twin[1] // 2)
                for layer, head in planted.pools["coarse"]
            )


def _pattern_gap(run, one, other, n_options):
    """Largest difference of two heads' attention from the options."""
    rows = [
        run.activations[f"blocks.{layer}.attn.hook_pattern"][head, -n_options - 1 : -1]
        for layer, head in (one, other)
    ]
    return float((rows[0] - rows[1]).abs().max())


def test_places_and_prompts_depend_on_the_seed_alone():
    first, again, other = plant(5, 3, 4), plant(5, 3, 4), plant(6, 3, 4)
    assert first.model.info.weights_sha256 == again.model.info.weights_sha256
    assert first.prompts == again.prompts
    assert first.pools == again.pools
    assert first.prompts != other.prompts
    assert first.pools != other.pools
    heads = [*first.declared, *first.decoys]
    assert set(heads) == set(first.place.values())
    assert len(heads) == len(KINDS["chains"].all_parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_layers": 1}, "no room"),
        ({"n_layers": 3, "n_heads": 8, "n_kv_heads": 1}, "6 key-value heads in all"),
        ({"n_heads": 8, "n_kv_heads": 3}, "share 3 key-value heads evenly"),
        ({"n_prompts": 1}, "n_prompts is 1"),
        ({"kind": "chain"}, "kind 'chain' is not one of chains"),
        ({"without": ["carrier"]}, "part 'carrier' is not one of filter"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        plant(0, **arguments)


def test_random_heads_attend_unevenly_and_write_little():
    planted = plant(7, 3, 4)
    special = planted.declared | planted.decoys
    event = planted.prompts.events[0]
    names = [
        f"blocks.{layer}.attn.{hook}" for layer in range(3) for hook in ("hook_z", "hook_pattern")
    ]
    [run] = planted.model.run([event.clean], names)
    weights = planted.model.output_weights()
    for layer, head in {(layer, head) for layer in range(3) for head in range(4)} - special:
        z = run.activations[f"blocks.{layer}.attn.hook_z"][:, head]
        pattern = run.activations[f"blocks.{layer}.attn.hook_pattern"][head, -1]
        assert float((z @ weights[layer, head]).norm(dim=-1).max()) < 0.5
        assert float(pattern.max()) > 2 / len(pattern)
    assert torch.isfinite(run.logits).all()
