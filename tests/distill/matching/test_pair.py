from dataclasses import replace

import pandas as pd
import pytest
import torch
from fixtures.distillation import POOLS

from workbench.distill.arms import ARMS, arm_config, find_arm
from workbench.distill.config import DEFAULTS, CopiedLayers, DistillationConfig, StudentShape
from workbench.distill.losses.losses import chain_loss
from workbench.distill.matching import ablation
from workbench.distill.matching.ablation import ablation_effects, match_by_ablation
from workbench.distill.matching.pair import control_map, pair_heads
from workbench.distill.training.copied import copy_layers
from workbench.errors import InputError

SCORES = pd.DataFrame(
    [(layer, head, 10.0 * layer + head) for layer in range(2) for head in range(4)],
    columns=["layer", "head", "output_norm"],
)


def test_ablation_effect_is_the_rise_of_the_loss_without_the_head(make_model, batch):
    model = make_model()
    effects = ablation_effects(model, [batch, batch])
    assert effects.shape == (2, 4)

    def loss() -> float:
        with torch.no_grad():
            logits = model.eval()(input_ids=batch["input_ids"]).logits
        return float(chain_loss(logits, batch["labels"], batch["weights"]).mean)

    before = loss()
    model.model.layers[1].self_attn.o_proj.weight.data[:, 16:24] = 0  # head 2 of 8 features each
    assert effects[1, 2].item() == pytest.approx(loss() - before, abs=1e-5)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_ablation_takes_as_many_examples_together_as_have_room(make_model, batch, monkeypatch):
    model, sizes = make_model(), []
    whole = ablation_effects(model, [batch])
    monkeypatch.setattr(ablation, "ROOM", 2 * batch["input_ids"].shape[1] * 800)
    model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    torch.testing.assert_close(ablation_effects(model, [batch]), whole, rtol=1e-4, atol=1e-6)
    assert set(sizes) == {2}


def test_heads_are_paired_by_their_relative_effect():
    teacher = torch.tensor([[0.0, 4.0, 1.0], [0.1, 2.0, -1.0]])
    student = torch.tensor([[0.5, 0.0], [1.0, 0.26]])
    pairs = match_by_ablation(teacher, student, 3)
    assert dict(pairs) == {(0, 1): (1, 0), (1, 1): (0, 0), (0, 2): (1, 1)}
    with pytest.raises(
        InputError, match="5 heads to match by ablation effect, must be from 1 to 4"
    ):
        match_by_ablation(teacher, student, 5)


def test_a_pretrained_student_is_paired_by_what_its_heads_look_at(make_model, batch):
    teacher = make_model()
    config = DistillationConfig(student="some/folder")
    found = pair_heads(teacher, make_model(), POOLS, config, batch)
    assert found.method == "attention"
    assert all(pair.teacher == pair.student for pair in found.pairs)
    scratch = pair_heads(teacher, make_model(), POOLS, DEFAULTS, batch)
    assert scratch.method == "depth"
    forced = DistillationConfig(student="some/folder", matching="depth")
    assert pair_heads(teacher, make_model(), POOLS, forced, batch) == scratch
    with pytest.raises(InputError, match="need the teacher's pooled heads"):
        pair_heads(teacher, make_model(), None, config, batch)


def test_copied_layers_have_the_teachers_own_heads(make_model, batch):
    teacher = make_model(n_layers=3)
    student = copy_layers(teacher, (0, 2))
    pools = {"coarse": [(0, 1), (1, 0)], "refine": [(2, 3)]}
    config = DistillationConfig(student=CopiedLayers(2))
    found = pair_heads(teacher, student, pools, config, batch)
    pairs = {pair.teacher: pair.student for pair in found.pairs}
    assert found.method == "copied"
    assert pairs[0, 1] == (0, 1) and pairs[2, 3] == (1, 3)
    assert pairs[1, 0] not in {(0, 1), (1, 3)}
    others = replace(config, student=CopiedLayers(2, from_="a/sister"))
    assert pair_heads(teacher, student, pools, others, batch).method == "attention"
    assert pair_heads(teacher, student, pools, replace(config, matching="depth"), batch).method == (
        "depth"
    )


def test_control_heads_take_the_place_of_the_pools(headmap):
    for heads in ("random", "norm"):
        found = control_map(headmap, heads, SCORES, seed=3)
        teachers = [pair.teacher for pair in found.pairs]
        assert len(set(teachers)) == 3
        assert not set(teachers) & {pair.teacher for pair in headmap.pairs}
        assert [pair.student for pair in found.pairs] == [pair.student for pair in headmap.pairs]
    # The largest norms outside the pools are 1-1 and 1-0, of which coarse comes first.
    assert teachers == [(1, 1), (0, 3), (1, 0)]
    random = control_map(headmap, "random", SCORES, seed=3)
    assert random == control_map(headmap, "random", SCORES, seed=3)
    assert [pair.teacher[0] for pair in random.pairs] == [0, 1, 1]
    assert control_map(headmap, "pools") is headmap
    with pytest.raises(InputError, match="random heads need the scores table"):
        control_map(headmap, "random")


PARTS = [
    *(("p1", one) for one in ("attention", "write", "interaction")),
    *(("p2", one) for one in ("loop", "write", "interaction")),
]


def test_arms_differ_in_what_they_say():
    full = ARMS["mechanistic"].loss.on
    assert set(ARMS["cot"].loss.on) == {"chain"}
    assert set(ARMS["cot+logits"].loss.on) == {"chain", "logit"}
    for part in ("attention", "update", "interaction"):
        assert full.keys() - ARMS[f"mechanistic-{part}"].loss.on.keys() == {part}
    whole = ARMS["phases"].loss
    parts = {f"{p}_{one}" for p, one in PARTS}
    assert set(whole.on) == {"chain", *parts}
    for part in parts:
        assert replace(ARMS[f"phases-{part}"].loss, **{part: getattr(whole, part)}) == whole
        assert whole.on.keys() - ARMS[f"phases-{part}"].loss.on.keys() == {part}
    for phase in ("p1", "p2"):
        left = whole.on.keys() - ARMS[f"phases-{phase}"].loss.on.keys()
        assert left == {part for part in parts if part.startswith(phase)}
    assert replace(ARMS["phases-gold"].loss, supervision="teacher") == whole
    for name in ("random", "norm"):
        assert (ARMS[name].heads, ARMS[name].loss) == (name, ARMS["mechanistic"].loss)
    for name in ("minilm", "hidden", "circuit"):
        assert set(ARMS[name].loss.on) == {"chain", name}
        assert not ARMS[name].loss.taught_pools
    base = DistillationConfig(student=StudentShape(n_layers=3), seed=5)
    chosen = arm_config("random", base)
    assert (chosen.student, chosen.seed, chosen.heads) == (base.student, 5, "random")
    with pytest.raises(InputError, match="arm 'none' is not one of cot, "):
        find_arm("none")
