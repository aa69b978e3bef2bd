import math
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from fixtures.architectures import build
from fixtures.distillation import POOLS
from fixtures.quantised import Int4, Int8, quantise, unpack
from safetensors.torch import load_file
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from workbench.distill.config import TERMS, LossConfig
from workbench.distill.examples.stream import Collator
from workbench.distill.matching.head_map import match_by_depth, swap_teacher
from workbench.distill.reading.parts import plain_model, shape_of
from workbench.distill.reading.positions import Marks
from workbench.distill.training.terms import PROJECTIONS, drop_projections
from workbench.errors import InputError

STUDENT_SIDE = {"coarse": [(0, 0)], "refine": [(1, 0), (1, 1)]}
"""Heads that learn, in `headmap`."""
PAIRS_OF_ITSELF = (((0, 1), (0, 1)), ((1, 2), (1, 2)))
NOTHING = dict.fromkeys(TERMS, 0.0)
SUMS = {
    "chain": 1.0,
    "logit": 0.5,
    "attention": 0.5,
    "interaction": 0.3,
    "minilm": 0.2,
    "hidden": 0.1,
}


def config_of(**weights) -> LossConfig:
    return LossConfig(**{**NOTHING, **weights})


def log_of(trainer) -> list[dict[str, float]]:
    return [
        {name: row[name] for name in row if name.startswith("loss") or name == "step"}
        for row in trainer.state.log_history
        if "loss" in row
    ]


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


@pytest.mark.parametrize("per", ["row", "example"])
@pytest.mark.parametrize("rows", ["all", "options", "target"])
def test_counts_are_known_before_the_models_run(per, rows, make_trainer, batch):
    config = config_of(**{**SUMS, "update": 0.1, "circuit": 0.1})
    for space in ("residual", "options"):
        trainer = make_trainer(replace(config, per=per, rows=rows, update_space=space))
        losses, _ = trainer.losses(trainer.model, batch)
        assert list(losses) == list(config.on)
        for name, count in trainer.terms.counts(batch).items():
            torch.testing.assert_close(losses[name].count, count, msg=name)


@pytest.mark.parametrize("per", ["row", "example"])
def test_accumulated_halves_equal_one_batch(per, make_trainer, make_stream):
    stream = make_stream()
    samples = [stream[index] for index in range(6)]
    halves = [Collator(8)(samples[:2]), Collator(8)(samples[2:])]  # of very different lengths
    config = config_of(**SUMS, update=0.2)
    trainer = make_trainer(replace(config, per=per, update_space="options"))
    whole = trainer.compute_loss(trainer.model, Collator(8)(samples))
    whole.backward()
    expected = {name: w.grad.clone() for name, w in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    batches, counts = trainer.get_batch_samples(iter(halves), 2, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 2
    losses = [trainer.training_step(trainer.model, half, counts) for half in batches]
    torch.testing.assert_close(sum(losses), whole.detach(), atol=1e-5, rtol=1e-6)
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_step_of_two_halves_trains_as_one_batch_does(make_trainer, tmp_path):
    config = config_of(chain=1.0, logit=0.5, attention=0.5, interaction=0.2)
    ends = []
    for size, accumulation in ((4, 1), (2, 2)):
        trainer = make_trainer(
            config,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            save_strategy="no",
            optim="sgd",  # Adam divides rounding by rounding
        )
        trainer.train()
        ends.append((log_of(trainer), trainer.model.state_dict()))
    (one, weights), (two, others) = ends
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], atol=1e-5, rtol=1e-4)


def test_each_term_is_logged_unweighted(make_trainer):
    config = config_of(chain=1.0, attention=0.5, update=0.25)
    trainer = make_trainer(config, save_strategy="no", logging_steps=2)
    trainer.train()
    rows = log_of(trainer)
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        terms = {name: row[f"loss_{name}"] for name in config.on}
        assert row["loss"] == pytest.approx(
            sum(weight * terms[name] for name, weight in config.on.items()), rel=1e-3
        )


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_no_number_stops_the_training(where, make_trainer, make_model):
    class Root(torch.autograd.Function):  # 0 of 0: finite, with a gradient that is not
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.nan

    student = make_model(seed=1)
    spoil = Root.apply if where == "gradient" else (lambda x: x * math.nan)
    student.model.norm.register_forward_hook(lambda module, args, output: spoil(output))
    trainer = make_trainer(config_of(chain=1.0), student=student, max_steps=2)
    named = "grad_norm" if where == "gradient" else "loss_chain, grad_norm"
    with pytest.raises(InputError, match=f"at step 1 {named}.* no finite numbers"):
        trainer.train()


def test_the_teacher_is_in_no_checkpoint(make_trainer, make_model, tmp_path):
    student = make_model(seed=1, n_layers=2)
    names = set(student.state_dict()) - {"lm_head.weight"}  # tied
    trainer = make_trainer(config_of(chain=1.0, hidden=0.1), student=student)
    trainer.train()
    folder = Path(get_last_checkpoint(str(tmp_path / "run")))
    saved = set(load_file(folder / "model.safetensors"))
    projections = {name for name in saved if name.startswith(PROJECTIONS)}
    assert saved - projections == names
    assert len(projections) == 2
    assert "workbench" not in (folder / "config.json").read_text()
    drop_projections(trainer.model)
    trainer.save_model(str(tmp_path / "end"))
    assert set(load_file(tmp_path / "end" / "model.safetensors")) == names


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


def test_mixed_precision_trains(make_trainer):
    config = config_of(**{**SUMS, "update": 0.1, "circuit": 0.1})
    trainer = make_trainer(config, bf16=True, max_steps=2, save_strategy="no")
    trainer.train()
    rows = log_of(trainer)
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}


def test_evaluation_gives_the_loss_of_a_batch(make_trainer, make_stream):
    trainer = make_trainer(config_of(chain=1.0, attention=0.5), per_device_eval_batch_size=4)
    stream = make_stream(n_samples=4)
    found = trainer.evaluate(eval_dataset=stream)["eval_loss"]
    whole = Collator(8)([stream[index] for index in range(4)])
    expected = trainer.compute_loss(trainer.model.eval(), whole).item()
    assert found == pytest.approx(expected, rel=1e-5)


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


def losses_and_gradients(trainer, batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    losses, _ = trainer.losses(trainer.model.eval(), batch)
    sum(loss.mean for loss in losses.values()).backward()
    weights = plain_model(trainer.model).named_parameters()
    return (
        {name: loss.mean.item() for name, loss in losses.items()},
        {name: weight.grad for name, weight in weights if weight.grad is not None},
    )


def everything(**changes) -> LossConfig:
    return replace(config_of(**SUMS, update=0.2, circuit=0.1), **changes)


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


@pytest.mark.parametrize("kind", [Int4, Int8])
@pytest.mark.parametrize("over", ["residual", "options"])
def test_a_quantised_teacher_teaches_what_its_weights_say(
    kind, over, make_trainer, make_model, batch
):
    found = []
    for plain in (False, True):
        torch.manual_seed(0)
        teacher = quantise(make_model(0), kind)
        teacher = unpack(teacher) if plain else teacher
        trainer = make_trainer(everything(update_space=over), teacher=teacher)
        found.append(losses_and_gradients(trainer, batch))
    within = 1e-5 if kind is Int4 else 0.1  # it rounds what it reads, too
    assert found[0][0] == pytest.approx(found[1][0], rel=within, abs=1e-6)
    one, two = (torch.cat([x.flatten() for x in gradients.values()]) for _, gradients in found)
    assert (one - two).norm() < within * two.norm()


@pytest.mark.parametrize("wrapped", ["teacher", "student"])
def test_adapters_teach_and_learn_as_if_they_were_merged(wrapped, make_trainer, make_model, batch):
    names = ["q_proj", "o_proj", "down_proj", "lm_head"]
    found = {}
    for merged in (True, False):
        models = {"teacher": make_model(0), "student": make_model(1)}
        for model in models.values():
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
            model.config.tie_word_embeddings = False
        torch.manual_seed(0)
        lora = peft.get_peft_model(models[wrapped], peft.LoraConfig(r=2, target_modules=names))
        for name, weight in lora.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.1)
        models[wrapped] = lora.merge_and_unload().requires_grad_() if merged else lora
        torch.manual_seed(0)
        trainer = make_trainer(everything(update_space="options"), **models)
        found[merged] = losses_and_gradients(trainer, batch)
    assert found[False][0] == pytest.approx(found[True][0], rel=1e-4, abs=1e-6)
    if wrapped == "student":
        inner, whole = lora.get_base_model(), found[True][1]
        ups = {name: x for name, x in found[False][1].items() if "lora_B" in name}
        assert len(ups) == 2 * 3 + 1
        for name, gradient in ups.items():  # of B in W + scale B A
            module, _ = name.split(".lora_B")
            down = inner.get_parameter(name.replace("lora_B", "lora_A"))
            expected = inner.get_submodule(module).scaling["default"] * whole[f"{module}.weight"]
            assert gradient.abs().max() > 0
            torch.testing.assert_close(gradient, expected @ down.T, rtol=1e-3, atol=1e-5)


def test_an_adapter_is_trained_and_saved_as_one(make_trainer, make_model, tmp_path):
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"])
    student = peft.get_peft_model(make_model(1), lora)
    before = {name: x.clone() for name, x in student.named_parameters()}
    trainer = make_trainer(config_of(chain=1.0, attention=0.5, update=0.1), student)
    trainer.train()
    moved = {name for name, x in student.named_parameters() if not torch.equal(x, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    trainer.save_model(str(tmp_path / "end"))
    assert {file.name for file in (tmp_path / "end").glob("*.safetensors")} == {
        "adapter_model.safetensors"
    }


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


def test_the_students_attention_stays_its_own(make_trainer, make_model, batch):
    student = make_model(seed=1)
    student.set_attn_implementation("eager")
    trainer = make_trainer(config_of(chain=1.0, attention=0.5), student, max_steps=1)
    trainer.train()
    assert student.config._attn_implementation == "eager"
    output = student(input_ids=batch["input_ids"], output_attentions=True)
    assert output.attentions[0] is not None


def test_what_does_not_fit_is_refused(make_trainer, make_model, headmap):
    full = config_of(chain=1.0, attention=0.5)
    with pytest.raises(InputError, match="eos_token_id 799 of the teacher is not in both"):
        make_trainer(full, make_model(vocab_size=700), make_model(eos_token_id=799))
    with pytest.raises(InputError, match="the head map is for a student"):
        make_trainer(full, make_model(n_layers=3))
    with pytest.raises(InputError, match="need a head map"):
        make_trainer(full, headmap=None)
    with pytest.raises(InputError, match="pairs matched by ablation"):
        make_trainer(config_of(circuit=1.0), circuit=())
    with pytest.raises(InputError, match=r"layers: \(0, 2\)"):
        make_trainer(replace(config_of(hidden=1.0), layers=((0, 2),)))
    only = headmap.model_copy(update={"pairs": headmap.in_pool("coarse")})
    with pytest.raises(InputError, match="no heads of the refine pool"):
        make_trainer(config_of(interaction=1.0), headmap=only)


@pytest.mark.parametrize("weight", ["interaction", "hidden"])
def test_sharded_weights_are_refused_where_they_must_be_whole(weight, make_trainer, monkeypatch):
    prepare = Trainer.create_accelerator_and_postprocess

    def sharded(self):  # as `accelerate launch` has it: the arguments know nothing of it
        prepare(self)
        self.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", sharded)
    with pytest.raises(InputError, match="need whole weights outside of the forward"):
        make_trainer(config_of(chain=1.0, **{weight: 1.0}))
    assert make_trainer(config_of(chain=1.0, attention=1.0, update=1.0)).is_sharded


def test_bad_weights_are_refused():
    with pytest.raises(InputError, match=r"logit: input should be .* equal to 0, got -1"):
        LossConfig(logit=-1.0)
    with pytest.raises(InputError, match="all loss weights are 0"):
        LossConfig(**NOTHING)
