"""Batches of others' collators, and samples of one's own, in the Trainer."""

from dataclasses import replace

import pytest
import torch
from fixtures.losses import config_of
from transformers import DataCollatorForSeq2Seq

from workbench.distill.examples.stream import Collator
from workbench.distill.losses.losses import IGNORED
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.errors import InputError


@pytest.fixture
def stock():
    """Padded on the right; the prompt has no labels."""
    torch.manual_seed(0)
    ids = torch.randint(1, 800, (2, 12))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :4] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def test_stock_batches_give_the_models_own_loss(stock, make_trainer):
    trainer = make_trainer(config_of(chain=1.0, logit=1.0))
    losses, _ = trainer.losses(trainer.model, stock)
    theirs = trainer.model(**stock).loss
    torch.testing.assert_close(losses["chain"].mean, theirs, atol=1e-5, rtol=1e-5)
    assert losses["logit"].count == (stock["labels"][:, 1:] != IGNORED).sum()
    for name, count in trainer.terms.counts(trainer._complete(stock)).items():
        torch.testing.assert_close(losses[name].count, count)


def test_stock_and_own_batches_are_the_same_online(stock, make_trainer):
    """What a row is worth does not depend on who collated it."""
    trainer = make_trainer(config_of(chain=1.0, logit=1.0))
    samples = [
        {
            "ids": [int(token) for token in ids[:n]],
            "weights": [0.0] * 4 + [1.0] * (int(n) - 4),
            "question": 4,
        }
        for ids, n in zip(stock["input_ids"], stock["attention_mask"].sum(dim=1), strict=True)
    ]
    one, _ = trainer.losses(trainer.model, stock)
    two, _ = trainer.losses(trainer.model, Collator(4)(samples))
    for name in one:
        torch.testing.assert_close(one[name].mean, two[name].mean, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("term", "key"),
    [
        ("attention", "option_spans"),
        ("update", "decisions"),
        ("interaction", "option_spans"),
        ("minilm", "option_spans"),
        ("circuit", "decisions"),
        ("p1_attention", "early"),
        ("p1_interaction", "option_spans"),
        ("p2_loop", "late"),
        ("p2_write", "late"),
    ],
)
def test_terms_name_the_key_that_a_batch_lacks(term, key, stock, make_trainer):
    trainer = make_trainer(config_of(chain=1.0, **{term: 1.0}))
    with pytest.raises(InputError, match=f"loss term {term} needs '{key}'"):
        trainer.losses(trainer.model, stock)


def test_rows_of_the_reply_need_no_options(stock, make_trainer):
    config = replace(config_of(attention=1.0), rows="target")
    trainer = make_trainer(config)
    losses, _ = trainer.losses(trainer.model, stock)
    assert losses["attention"].total > 0 and losses["attention"].count == 9 + 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_mask": torch.tensor([[0] * 3 + [1] * 9] * 2)}, "padding on the right"),
        ({"position_ids": torch.zeros(2, 12)}, "batches have position_ids"),
        ({"labels": None}, "loss term chain needs 'labels'"),
        ({"input_ids": None}, "training needs 'input_ids'"),
    ],
)
def test_batches_that_would_be_read_wrongly_are_refused(change, message, stock, make_trainer):
    trainer = make_trainer(config_of(chain=1.0))
    batch = {name: x for name, x in {**stock, **change}.items() if x is not None}
    with pytest.raises(InputError, match=message):
        trainer.losses(trainer.model, batch)


def test_a_stock_collator_trains(stock, make_trainer, qwen_tokenizer):
    trainer = make_trainer(config_of(chain=1.0, logit=0.5), max_steps=3)
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [IGNORED, 6, 7, 8]}, {"input_ids": [9, 4, 2]}]
    rows[1]["labels"] = rows[1]["input_ids"]
    collate = DataCollatorForSeq2Seq(qwen_tokenizer)
    trainer = MechanisticDistillationTrainer(
        trainer.model,
        trainer.teacher,
        trainer.terms.config,
        args=trainer.args,
        train_dataset=rows * 8,
        data_collator=collate,
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 3 and losses[-1] < losses[0]
