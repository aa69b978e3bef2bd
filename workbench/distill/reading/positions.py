"""Where in a batch the losses look: rows, targets, samples and options, as masks and positions."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.distill.config import MechanisticDistillationConfig, Rows
from workbench.distill.losses.compiling import fused
from workbench.distill.losses.divergence import weighted_sum
from workbench.distill.losses.losses import IGNORED

SMALLEST = {False: 2, True: 4}
"""Samples that CKA needs, by whether it is debiased."""


@dataclass(frozen=True)
class Marks:
    """Positions in a batch.

    Attributes:
        real: real tokens, not padding.
        rows: query positions of patterns and hidden states.
        targets: positions whose next token belongs to the chain or the answer.
        decisions: position of each decision; 0 where there is none.
        decided: which decisions there are.
        samples: the decisions, then the last token of each option.
        sampled: which samples there are.
        spans: tokens of each option, half-open; (0, 0) for none.
        tokens: token that selects each option.
        offered: which options there are.
        evidence: tokens of each decision's evidence, half-open; (0, 0) for none.
    """

    real: Bool[Tensor, "batch token"]
    rows: Bool[Tensor, "batch token"]
    targets: Bool[Tensor, "batch token"]
    decisions: Int[Tensor, "batch decision"]
    decided: Bool[Tensor, "batch decision"]
    samples: Int[Tensor, "batch sample"]
    sampled: Bool[Tensor, "batch sample"]
    spans: Int[Tensor, "batch option 2"]
    tokens: Int[Tensor, "batch option"]
    offered: Bool[Tensor, "batch option"]
    evidence: Int[Tensor, "batch decision 2"]

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], rows: Rows = "options") -> "Marks":
        """The marks of a batch of `data.Collator`."""
        question, length = batch["question"][:, None], batch["length"][:, None]
        spans, decisions = batch["option_spans"], batch["decisions"]
        offered = spans[..., 1] > spans[..., 0]
        decided = decisions >= 0
        places = torch.arange(batch["input_ids"].shape[1], device=question.device)
        first = {
            "all": torch.zeros_like(question),
            "options": spans[..., 0].masked_fill(~offered, len(places)).amin(dim=1, keepdim=True),
            "target": question - 1,
        }[rows]
        ends = (spans[..., 1] - 1).clamp(min=0)
        return cls(
            real=places < length,
            rows=(places >= first) & (places < length),
            targets=(places >= question - 1) & (places < length - 1),
            decisions=decisions.clamp(min=0),
            decided=decided,
            samples=torch.cat([decisions.clamp(min=0), ends], dim=1),
            sampled=torch.cat([decided, offered], dim=1),
            spans=spans,
            tokens=batch["option_tokens"],
            offered=offered,
            evidence=batch["evidence"],
        )

    @property
    def asked(self) -> Bool[Tensor, "batch decision"]:
        """Decisions whose evidence is known."""
        return self.decided & (self.evidence[..., 1] > self.evidence[..., 0])


@fused
def sampled_positions(batch: Mapping[str, Tensor], rows: Rows) -> Int[Tensor, "batch sample"]:
    """Where what heads write is read."""
    return Marks.of(batch, rows).samples


@fused
def term_counts(
    batch: Mapping[str, Tensor], config: MechanisticDistillationConfig
) -> dict[str, Float[Tensor, ""]]:
    """What each term that is on is a sum over in this batch, before any model has run.

    The counts of several batches add up, so each term of each batch can be divided by the count of
    a whole accumulated step.
    """
    marks = Marks.of(batch, config.rows)
    samples = marks.sampled.sum().float()
    enough = samples >= SMALLEST[config.debiased]
    cka = torch.where(enough, samples, 0.0)
    labelled = (batch["labels"][:, 1:] != IGNORED) * batch["weights"][:, 1:].float()

    def rows(weights: Tensor) -> Tensor:
        zeros = torch.zeros(weights.shape, device=weights.device)
        return weighted_sum(zeros, weights.float(), config.per)[1]

    counts = {
        "chain": labelled.sum(),
        "logit": rows(marks.targets),
        "attention": rows(marks.rows),
        "update": cka if config.update_space == "residual" else rows(marks.decided),
        "interaction": rows(marks.asked),
        "minilm": rows(marks.rows),
        "hidden": rows(marks.rows),
        "circuit": cka,
    }
    return {name: counts[name] for name in config.on}
