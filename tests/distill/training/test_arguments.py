"""Arguments of the Trainer work as they do elsewhere, or are refused in a line."""

import numpy as np
import peft
import pytest
import torch
from fixtures.distillation import SMALL
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import Trainer
from transformers.utils import requires_backends

from workbench.distill.config import TERMS, LossConfig
from workbench.distill.reading.parts import plain_model
from workbench.distill.training.arguments import reporting, trainer_arguments
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.errors import InputError

EVERYTHING = LossConfig(**dict.fromkeys(TERMS, 0.3))


def step(trainer, batch):
    """Loss and gradients of a batch, and whether blocks were computed twice."""
    forwards = []
    mlp = plain_model(trainer.model).model.layers[0].get_submodule("mlp")
    handle = mlp.register_forward_pre_hook(lambda *_: forwards.append(1))
    trainer.model.train()
    torch.manual_seed(0)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    handle.remove()
    weights = ((name, x) for name, x in trainer.model.named_parameters() if x.requires_grad)
    names = {name.replace("_checkpoint_wrapped_module.", ""): x.grad for name, x in weights}
    return loss.detach(), names, len(forwards)


@pytest.mark.parametrize("how", ["transformers", "fsdp", "adapter"])
def test_checkpointed_activations_give_the_same_loss_and_gradients(
    how, make_trainer, make_model, batch
):
    found = []
    for recomputed in (False, True):
        torch.manual_seed(0)  # of adapters, and of the hidden states' projections
        student = make_model(seed=1)
        if how == "adapter":
            lora = peft.LoraConfig(
                r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False
            )
            student = peft.get_peft_model(student, lora)
        here = recomputed and how != "fsdp"
        trainer = make_trainer(EVERYTHING, student, gradient_checkpointing=here)
        if here:
            student.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        elif recomputed:  # as FSDP does it; what reads a block is inside of the checkpoint
            trainer._student_capture.recomputed = True
            student.model.layers = torch.nn.ModuleList(
                map(checkpoint_wrapper, student.model.layers)
            )
        found.append(step(trainer, batch))
    (plain, gradients, once), (loss, others, twice) = found
    assert (once, twice) == (1, 2)
    assert torch.equal(loss, plain)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0
        assert torch.equal(gradient, others[name]), name


def test_checkpointing_with_reentry_is_refused_where_activations_are_read(make_trainer, make_model):
    reentrant = {"use_reentrant": True}
    with pytest.raises(InputError, match="set use_reentrant to False"):
        make_trainer(
            EVERYTHING, gradient_checkpointing=True, gradient_checkpointing_kwargs=reentrant
        )
    student = make_model(seed=1)
    student.activation_checkpointing_enable(reentrant)
    with pytest.raises(InputError, match="set use_reentrant to False"):
        make_trainer(EVERYTHING, student)
    make_trainer(LossConfig(attention=0.0), student)
    with pytest.raises(InputError, match="torch_compile cannot be used"):
        make_trainer(EVERYTHING, torch_compile=True)


def test_checkpointing_trains(make_trainer):
    ends = []
    for on in (False, True):
        config = LossConfig(attention=0.5, update=0.1)
        trainer = make_trainer(config, gradient_checkpointing=on, save_strategy="no")
        trainer.train()
        assert trainer.model.is_gradient_checkpointing == on
        ends.append(trainer.model.state_dict())
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name]), name


def test_what_the_loss_would_ignore_is_refused(make_trainer):
    with pytest.raises(InputError, match=r"label_smoothing_factor 0\.1 is no part of the loss"):
        make_trainer(EVERYTHING, label_smoothing_factor=0.1)
    trainer = make_trainer(LossConfig(attention=0.0))
    with pytest.raises(InputError, match="compute_loss_func would not be called"):
        MechanisticDistillationTrainer(
            trainer.model,
            trainer.teacher,
            LossConfig(attention=0.0),
            args=trainer.args,
            compute_loss_func=lambda *_: 0,
        )


class _ServiceError(Exception):
    __module__ = "wandb.errors.errors"


def test_the_old_name_of_checkpointing_warns_of_nothing(tmp_path, recwarn):
    given = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"a": 1}}
    args = trainer_arguments(tmp_path, SMALL, 0, 1, given)
    assert args.gradient_checkpointing and args.gradient_checkpointing_kwargs == {"a": 1}
    assert not [one for one in recwarn if one.category is FutureWarning]


def test_a_service_that_cannot_be_reported_to_is_named(tmp_path):
    def arguments(service):
        return trainer_arguments(tmp_path, SMALL, 0, 2, {"report_to": service})

    with pytest.raises(InputError, match="report_to wandbb: wandbb is not supported, only"):
        arguments("wandbb")
    args = arguments("none")
    args.report_to = ["wandb"]
    with pytest.raises(InputError, match="report_to wandb: no API key"), reporting(args):
        raise _ServiceError("no API key")
    with pytest.raises(KeyError), reporting(args):
        raise KeyError("ours")


@pytest.mark.parametrize(
    "further",
    [
        {"eval_strategy": "steps"},
        {"resume_from_checkpoint": "there"},
        {"train_sampling_strategy": "group_by_length"},
    ],
)
def test_what_there_is_no_use_for_is_refused_before_training(further, tmp_path):
    with pytest.raises(InputError, match=f"^trainer: {next(iter(further))}: "):
        trainer_arguments(tmp_path, SMALL, 0, 2, further)


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ({"push_to_hub": True}, "push_to_hub: the Trainer would push what it works with, not the"),
        ({"hub_token": "secret"}, "hub_token: the Trainer would push"),
        ({"optim": "adamw_bnb_8bit"}, "optim adamw_bnb_8bit: You need to install `bitsandbytes`"),
        (
            {"optim": "galore_adamw", "optim_target_modules": ["attn"]},
            "optim galore_adamw: You need to install `galore_torch`",
        ),
        ({"optim_args": "what"}, "optim adamw_torch_fused: not enough values"),
        (
            {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"what": 1}},
            "lr_scheduler_type polynomial: .* unexpected keyword argument 'what'",
        ),
    ],
)
def test_what_would_fail_after_the_models_are_loaded_is_refused_before(further, said, tmp_path):
    with pytest.raises(InputError, match=f"^trainer: {said}"):
        trainer_arguments(tmp_path, SMALL, 0, 2, further)


def test_nothing_is_pushed_where_that_is_said(tmp_path):
    assert not trainer_arguments(tmp_path, SMALL, 0, 2, {"push_to_hub": False}).push_to_hub


def test_an_optimiser_of_some_modules_fails_in_a_line(make_trainer, tmp_path, monkeypatch):
    def of_modules(args, model):
        raise ValueError("No target modules found for galore_adamw")

    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(of_modules))
    # Only the student's modules say whether there are such.
    trainer_arguments(tmp_path, SMALL, 0, 2, {"optim_target_modules": ["none"]})
    with pytest.raises(InputError, match=r"trainer: optim .*: No target modules found"):
        make_trainer(LossConfig(attention=0.0)).create_optimizer()


def test_a_package_that_the_trainer_lacks_is_named_in_a_line(tmp_path):
    args = trainer_arguments(tmp_path, SMALL, 0, 2, {})
    with pytest.raises(InputError, match=r"^trainer: .*natten"), reporting(args):
        requires_backends("a kernel", ["natten"])
    with pytest.raises(ImportError, match="ours"), reporting(args):
        raise ImportError("ours")


def test_metrics_and_predictions_get_the_students_logits(make_trainer, make_stream):
    trainer = make_trainer(LossConfig(attention=0.5), per_device_eval_batch_size=2)
    stream = make_stream(n_samples=5, same_size=1)  # batches of other widths
    seen = []

    def accuracy(found) -> dict[str, float]:
        logits, labels = found.predictions, found.label_ids
        seen.append(logits)
        counted = labels[:, 1:] != -100
        right = logits[:, :-1].argmax(axis=-1) == labels[:, 1:]
        return {"accuracy": float(right[counted].mean())}

    trainer.compute_metrics = accuracy
    found = trainer.evaluate(eval_dataset=stream)
    predicted = trainer.predict(stream)
    assert found["eval_accuracy"] == predicted.metrics["test_accuracy"]
    assert found["eval_loss"] == pytest.approx(predicted.metrics["test_loss"])
    np.testing.assert_array_equal(predicted.predictions, seen[0])
    first = stream[0]["ids"]
    logits = trainer.model.eval()(torch.tensor([first])).logits[0].detach()
    np.testing.assert_allclose(predicted.predictions[0, : len(first)], logits, atol=1e-4)
