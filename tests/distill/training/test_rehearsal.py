"""CKA is that of a step, in however many forwards it is made."""

import pytest
import torch
from fixtures.distillation import placed

from workbench.distill.config import TERMS, LossConfig
from workbench.distill.losses.losses import update_loss
from workbench.distill.losses.together import Step

CKA = {"update": 0.5, "circuit": 0.3, "p1_write": 0.4, "p2_write": 0.4}
CONFIG = LossConfig(**{**dict.fromkeys(TERMS, 0.0), "chain": 1.0, "attention": 0.3, **CKA})


@pytest.mark.parametrize("debiased", [True, False])
def test_parts_of_a_step_add_up_to_the_gradient_of_the_whole(debiased):
    torch.manual_seed(0)
    theirs, ours = torch.randn(13, 6), torch.randn(13, 4, requires_grad=True)
    expected = update_loss(theirs, ours, debiased=debiased)
    expected.mean.backward()
    sizes, counts = [5, 2, 6], [torch.tensor(float(n)) for n in (5, 2, 6)]
    step = Step(0, lambda samples: [samples], collecting=True)
    parts = list(zip(theirs.split(sizes), ours.detach().split(sizes), counts, strict=True))
    for number, part in enumerate(parts):
        step.begin(number)
        assert step.loss(*part, debiased).total == 0
    step.collecting, value = False, torch.tensor(0.0)
    slope = torch.zeros(13, 4)
    for number, (teacher, student, count) in enumerate(parts):
        student = student.clone().requires_grad_()
        step.begin(number)
        loss = step.loss(teacher, student, count, debiased)
        (loss.total / 13).backward()
        value = value + loss.total.detach() / 13
        at = sum(sizes[:number])
        slope[at : at + sizes[number]] = student.grad
    torch.testing.assert_close(value, expected.mean.detach())
    torch.testing.assert_close(slope, ours.grad)


def test_a_step_of_halves_trains_as_the_whole(make_trainer, make_model, make_stream):
    stream = make_stream()
    examples, ends = [placed(stream[i]) for i in range(8)], {}
    for size, accumulation, over in ((8, 1, "step"), (4, 2, "step"), (4, 2, "forward")):
        torch.manual_seed(3)
        trainer = make_trainer(
            LossConfig(**{name: getattr(CONFIG, name) for name in TERMS}, cka=over),
            student=make_model(seed=1, attention_dropout=0.0),
            examples=examples,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=2,
            save_strategy="no",
            optim="sgd",
        )
        trainer.train()
        log = [row for row in trainer.state.log_history if "loss" in row]
        rows = [{k: v for k, v in row.items() if k.startswith("loss")} for row in log]
        ends[size, over] = rows, trainer.model.state_dict()
    whole, halves, alone = ends.values()
    for row, other, forward in zip(whole[0], halves[0], alone[0], strict=True):
        assert other == pytest.approx(row, rel=1e-4)
        assert forward["loss_p1_write"] != pytest.approx(row["loss_p1_write"], rel=1e-3)
    for name, weight in whole[1].items():
        torch.testing.assert_close(halves[1][name], weight, atol=1e-6, rtol=1e-5, msg=name)


def test_dropout_of_a_forward_is_that_of_its_rehearsal(make_trainer, make_model, make_stream):
    stream = make_stream()
    trainer = make_trainer(
        CONFIG,
        student=make_model(seed=1, attention_dropout=0.3),
        examples=[placed(stream[i]) for i in range(4)],
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        max_steps=1,
        save_strategy="no",
    )
    differences, loss = [], Step.loss

    def watched(self, teacher, student, count, debiased):
        at, own = self._comparison, self._samples[self._forward]
        if not self.collecting:
            differences.append(float((own[at][1] - student).abs().max()))
        return loss(self, teacher, student, count, debiased)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "loss", watched)
        trainer.train()
    assert len(differences) > 4 and max(differences) < 1e-6
