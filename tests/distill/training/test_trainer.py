"""The loop of training: what is counted, accumulated, logged and saved."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.losses import SUMS, config_of, log_of
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

from workbench.distill.examples.stream import Collator
from workbench.distill.training.terms import PROJECTIONS, drop_projections
from workbench.errors import InputError


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


def test_the_students_attention_stays_its_own(make_trainer, make_model, batch):
    student = make_model(seed=1)
    student.set_attn_implementation("eager")
    trainer = make_trainer(config_of(chain=1.0, attention=0.5), student, max_steps=1)
    trainer.train()
    assert student.config._attn_implementation == "eager"
    output = student(input_ids=batch["input_ids"], output_attentions=True)
    assert output.attentions[0] is not None
