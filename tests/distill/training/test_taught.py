"""What the terms together teach a student, and what changes none of them."""

from dataclasses import replace

import pytest
import torch
from fixtures.architectures import build
from fixtures.distillation import POOLS
from fixtures.losses import SUMS, config_of, everything, log_of, losses_and_gradients

from workbench.distill.config import TERMS
from workbench.distill.matching.head_map import match_by_depth, swap_teacher
from workbench.distill.reading.parts import shape_of
from workbench.distill.reading.positions import Marks
from workbench.errors import InputError

STUDENT_SIDE = {"coarse": [(0, 0)], "refine": [(1, 0), (1, 1)]}
"""Heads that learn, in `headmap`."""
PAIRS_OF_ITSELF = (((0, 1), (0, 1)), ((1, 2), (1, 2)))


@pytest.mark.parametrize("term", TERMS)
def test_every_term_teaches_the_student_and_not_the_teacher(term, make_trainer, batch):
    trainer = make_trainer(config_of(**{term: 1.0}))
    trainer.compute_loss(trainer.model, batch).backward()
    weights = trainer.model.named_parameters()
    found = {name: weight.grad for name, weight in weights if weight.grad is not None}
    # All terms but the chain's look at layer 0 or below it, which hears of layer 1 as well.
    below = [grad for name, grad in found.items() if ".layers.0.self_attn.q_proj" in name]
    assert below[0].abs().max() > 0
    assert all(grad.isfinite().all() for grad in found.values())
    assert all(weight.grad is None for weight in trainer.teacher.parameters())
    assert not any(weight.requires_grad for weight in trainer.teacher.parameters())


def test_attention_alone_brings_the_students_maps_to_the_teachers(make_trainer, headmap, batch):
    trainer = make_trainer(
        config_of(attention=1.0), max_steps=30, learning_rate=1e-2, save_strategy="no"
    )

    def distance() -> float:
        with torch.no_grad():
            return float(trainer.losses(trainer.model, batch)[0]["attention"].mean)

    def refine_maps() -> list[torch.Tensor]:
        maps = []
        for model, heads in ((trainer.teacher, [2, 3]), (trainer.model, ours)):
            model.set_attn_implementation("eager")
            with torch.no_grad():
                output = model(input_ids=batch["input_ids"], output_attentions=True)
            maps.append(output.attentions[1][:, heads].mean(dim=1))
            model.set_attn_implementation("sdpa")
        return maps

    ours = [pair.student[1] for pair in headmap.in_pool("refine")]
    before = distance()
    theirs, mine = refine_maps()
    gap = (theirs - mine).abs().sum(dim=-1).mean()
    trainer.train()
    theirs, mine = refine_maps()
    assert distance() < 0.7 * before
    assert (theirs - mine).abs().sum(dim=-1).mean() < 0.9 * gap


def test_a_student_that_is_its_teacher_loses_nothing(make_trainer, make_model, batch, headmap):
    config = config_of(logit=1.0, attention=1.0, update=1.0, interaction=1.0, minilm=1.0)
    same = swap_teacher(headmap, STUDENT_SIDE)
    for route, space in (("evidence", "residual"), ("decision", "options")):
        given = replace(config, route=route, update_space=space)
        trainer = make_trainer(given, make_model(), make_model(), headmap=same)
        losses, _ = trainer.losses(trainer.model, batch)
        for name, loss in losses.items():
            assert loss.mean.item() == pytest.approx(0, abs=1e-5), name


def test_over_options_an_update_has_a_size(make_trainer, make_model, batch, headmap):
    same = swap_teacher(headmap, STUDENT_SIDE)
    student = make_model()
    with torch.no_grad():
        for pair in same.in_pool("refine"):
            layer, head = pair.teacher
            weight = student.get_submodule(f"model.layers.{layer}.self_attn.o_proj").weight
            width = weight.shape[1] // same.teacher.n_heads
            weight[:, head * width : (head + 1) * width] *= 3
    found = {}
    for space in ("residual", "options"):
        config = replace(config_of(update=1.0), update_space=space, pools=("refine",))
        config = replace(config, interaction_temperature=0.1)
        trainer = make_trainer(config, student, make_model(), headmap=same)
        found[space] = trainer.losses(trainer.model, batch)[0]["update"].mean.item()
    assert found["residual"] == pytest.approx(0, abs=1e-5)  # CKA is blind to scale
    assert found["options"] > 1e-3


@pytest.mark.parametrize("n_tokens", [None, 790])
def test_padded_vocabularies_are_compared_over_the_ids_of_both(
    n_tokens, make_trainer, make_model, batch
):
    sides = {"teacher": make_model(0, vocab_size=864), "student": make_model(1, vocab_size=832)}
    config = replace(config_of(**SUMS), per="row", logit_temperature=1.0)
    trainer = make_trainer(config, **sides, n_tokens=n_tokens)
    losses, _ = trainer.losses(trainer.model, batch)
    ids = slice(n_tokens or 832)
    with torch.no_grad():
        logits = {name: one(batch["input_ids"]).logits[..., ids] for name, one in sides.items()}
    rows = Marks.of(batch).targets
    theirs, ours = (logits[name][rows].log_softmax(dim=-1) for name in ("teacher", "student"))
    expected = (theirs.exp() * (theirs - ours)).sum(dim=-1).mean()
    torch.testing.assert_close(losses["logit"].mean.detach(), expected, rtol=1e-4, atol=1e-6)
    trainer.train()
    assert log_of(trainer)[-1]["step"] == 4


@pytest.mark.parametrize("route", ["decision", "evidence"])
@pytest.mark.parametrize("rows", ["all", "options", "target"])
def test_rows_chosen_beforehand_change_no_loss_and_no_gradient(route, rows, make_trainer, batch):
    found = []
    everywhere = torch.arange(batch["input_ids"].shape[1]).expand(len(batch["input_ids"]), -1)
    for given in (batch, {**batch, "queries": everywhere}):
        torch.manual_seed(0)
        config = config_of(attention=0.5, interaction=0.2, minilm=0.3)
        trainer = make_trainer(replace(config, route=route, rows=rows))
        found.append(losses_and_gradients(trainer, given))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5, abs=1e-7)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_few_rows_keep_a_few_rows(make_trainer, make_model):
    ids = torch.arange(1024)[None] % 700
    batch = {
        "input_ids": ids,
        "labels": ids,
        "weights": torch.ones(1, 1024),
        "length": torch.tensor([1024]),
        "question": torch.tensor([1000]),
        "option_spans": torch.tensor([[[4, 6], [6, 9]]]),
        "option_tokens": torch.tensor([[5, 7]]),
        "evidence": torch.tensor([[[1, 3]]]),
        "decisions": torch.tensor([[1010]]),
    }
    sizes = {}

    def note(saved: torch.Tensor) -> torch.Tensor:
        sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    found = {}
    for name, weight in (("nothing", 0.0), ("attention", 0.5)):
        models = {side: make_model(0, context=1024) for side in ("student", "teacher")}
        trainer = make_trainer(
            replace(config_of(chain=1.0, attention=weight), rows="target"), **models
        )
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            trainer.losses(trainer.model, batch)
        found[name] = sum(sizes.values())
    # 25 rows of two layers (the heads of a layer are pooled), a few tensors of floats each.
    assert 0 < found["attention"] - found["nothing"] < 20 * 2 * 2 * 25 * 1024 * 4


@pytest.mark.parametrize("over", ["residual", "options"])
def test_rows_that_pad_embeddings_change_no_term(over, make_trainer, make_model, batch):
    found = []
    for wider in (0, 32):
        sides = {"teacher": make_model(0), "student": make_model(1)}
        for more, model in enumerate(sides.values()):
            if wider:
                model.resize_token_embeddings(800 + wider * (2 - more), mean_resizing=False)
        torch.manual_seed(0)  # of the hidden states' projections
        trainer = make_trainer(everything(update_space=over), **sides, n_tokens=800)
        found.append(losses_and_gradients(trainer, batch)[0])
    chains = [one.pop("chain") for one in found]
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-7)
    # Over all that the student can say: what nobody ever says, it has to learn not to.
    assert chains[1] > chains[0]


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_other_architectures_teach_what_can_be_read_of_them(kind, make_trainer, batch):
    own = {"vocab_size": 800, "n_layer": 2, "num_hidden_layers": 2}
    long = {"n_positions": 512, "max_position_embeddings": 512}
    student, teacher = (build(kind, **own, **long) for _ in range(2))
    shape = shape_of(student)
    found = match_by_depth(POOLS, shape, shape)
    same = found.model_copy(
        update={
            "pairs": tuple(
                pair.model_copy(update={"teacher": pair.student}) for pair in found.pairs
            )
        }
    )
    config = config_of(logit=0.5, attention=0.5, update=0.2, minilm=0.2, hidden=0.1, circuit=0.1)
    losses, _ = make_trainer(config, student, teacher, PAIRS_OF_ITSELF, same).losses(student, batch)
    for name, loss in losses.items():
        if name != "hidden":  # whose projection is random
            assert loss.mean.item() == pytest.approx(0, abs=1e-5), name
    sum(loss.mean for loss in losses.values()).backward()
    with pytest.raises(InputError, match="direct contributions"):
        make_trainer(config_of(interaction=1.0), student, teacher, headmap=same)
