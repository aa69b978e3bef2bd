"""A term that somebody adds is a class in one file: here registered at run time, and trained."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from workbench.distill.config import DistillationConfig, LossConfig, weights
from workbench.distill.losses.losses import Loss
from workbench.distill.losses.term import TERMS, Term, register
from workbench.distill.reading.wanted import Wanted
from workbench.distill.training.loss_table import LossTable
from workbench.errors import InputError
from workbench.files import settings
from workbench.progress import Reporter


@pytest.fixture
def with_sharpness():
    """The configuration with a further term: how sharply the student's head 1-0 looks."""
    before = dict(TERMS)

    @register
    class Sharpness(Term):
        name = "sharpness"
        help = "Weight of the entropy of head 1-0."
        reads_teacher = False

        def needs(self, side):
            return Wanted(patterns=frozenset([(1, 0)] if side == "student" else []))

        def count(self, marks):
            return marks.rows.sum().float()

        def loss(self, marks, teacher, student):
            entropy = torch.special.entr(student.patterns[1, 0].clamp(min=1e-9)).sum(dim=-1)
            return Loss((entropy * marks.compared).sum(), marks.rows.sum().float())

    @settings
    class Extended(weights([Sharpness]), LossConfig):
        pass

    yield Extended
    TERMS.clear()
    TERMS.update(before)


def test_a_new_term_trains_is_logged_and_is_checked(with_sharpness, make_model, make_trainer):
    config = with_sharpness(attention=0.0, sharpness=0.5)
    assert config.on == {"chain": 1.0, "sharpness": 0.5} and not config.needs_teacher
    assert DistillationConfig(loss=replace(config, chain=2.0)).loss.on["sharpness"] == 0.5
    with pytest.raises(InputError, match=r"sharpness: input should be greater than .*, got -1"):
        with_sharpness(sharpness=-1.0)

    student = make_model(seed=1)
    before = student.model.layers[1].self_attn.q_proj.weight.clone()
    trainer = make_trainer(
        replace(config, chain=0.0),
        student,
        max_steps=2,
        gradient_accumulation_steps=2,
        learning_rate=0.1,
        lr_scheduler_type="linear",
        save_strategy="no",
    )
    console = Console(record=True, width=200, file=io.StringIO())
    trainer.add_callback(LossTable(Reporter(console), list(trainer.terms.config.on)))
    trainer.train()
    first, second = (row["loss_sharpness"] for row in trainer.state.log_history if "loss" in row)
    assert 0 < second < first
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.5 * first)
    assert not torch.equal(student.model.layers[1].self_attn.q_proj.weight, before)
    head, *rows = (line.split() for line in console.export_text().splitlines())
    assert head == ["step/2", "loss", "sharpness"] and float(rows[0][2]) == pytest.approx(
        first, abs=1e-3
    )
