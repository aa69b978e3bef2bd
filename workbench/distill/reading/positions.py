"""Where in a batch the losses look: rows, targets, samples and options, as masks and positions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from workbench.distill.config import Rows
from workbench.distill.losses.compiling import fused
from workbench.distill.losses.divergence import sample_count, weighted_sum
from workbench.distill.losses.term import Per
from workbench.distill.reading.wanted import Looks

Written = Literal["decisions", "samples", "early", "late"]
"""Which of the positions at which heads' writing is read; samples begin with the decisions."""
Looking = Literal["evidence", "decisions", "early", "late"]
"""Between which tokens attention mass is taken, by option: from options on the evidence, or from
these positions on options."""


@dataclass(frozen=True)
class ChainRows:
    """Query positions in chains that belong to a phase; none in a batch without them.

    Attributes:
        positions: of each; 0 where there is none.
        there: which there are.
        rows: where in `Marks.queries` each is; 0 where it is not.
        decision: what each is about; -1 where not known.
        option: of which option each speaks; -1 for the right one, or not known.
    """

    positions: Int[Tensor, "batch place"]
    there: Bool[Tensor, "batch place"]
    rows: Int[Tensor, "batch place"]
    decision: Int[Tensor, "batch place"]
    option: Int[Tensor, "batch place"]

    @classmethod
    def of(
        cls, batch: Mapping[str, Tensor], name: str, queries: Int[Tensor, "batch row"]
    ) -> "ChainRows":
        """Those that a batch calls so."""
        none = queries.new_zeros(len(queries), 0)
        places = batch.get(name, none)
        unknown = torch.full_like(places, -1)
        return cls(
            positions=places.clamp(min=0),
            there=places >= 0,
            rows=_where_in(queries, places),
            decision=batch.get(f"{name}_decision", unknown),
            option=batch.get(f"{name}_option", unknown),
        )


@dataclass(frozen=True)
class Marks:
    """Positions in a batch.

    Attributes:
        real: real tokens, not padding.
        rows: positions at which patterns and hidden states are compared.
        queries: positions whose attention was read, -1 for none; see `choose_queries`.
        compared: which of the queries are `rows`.
        targets: positions whose next token belongs to the chain or the answer.
        labels: tokens to be predicted; IGNORED where no loss is taken.
        weights: weight of each token in the loss on chains.
        decisions: position of each decision; 0 where there is none.
        decision_rows: where in `queries` each decision is; 0 where it is not.
        decided: which decisions there are.
        asked: decisions whose evidence is known.
        samples: the decisions, then the last token of each option.
        sampled: which samples there are.
        early: where chains shortlist.
        late: where chains weigh candidates.
        shortlist: decision, first token and end of where chains name the true label; -1 for none.
        near: the same of where near misses are named, in chains or prompts.
        gold: the right option of each decision; -1 for none.
        near_options: decision and option of each near miss; -1 for none.
        spans: tokens of each option, half-open; (0, 0) for none.
        tokens: token that selects each option.
        offered: which options there are.
        evidence: tokens of each decision's evidence, half-open; (0, 0) for none.
    """

    real: Bool[Tensor, "batch token"]
    rows: Bool[Tensor, "batch token"]
    queries: Int[Tensor, "batch row"]
    compared: Bool[Tensor, "batch row"]
    targets: Bool[Tensor, "batch token"]
    labels: Int[Tensor, "batch token"]
    weights: Float[Tensor, "batch token"]
    decisions: Int[Tensor, "batch decision"]
    decision_rows: Int[Tensor, "batch decision"]
    decided: Bool[Tensor, "batch decision"]
    asked: Bool[Tensor, "batch decision"]
    samples: Int[Tensor, "batch sample"]
    sampled: Bool[Tensor, "batch sample"]
    spans: Int[Tensor, "batch option 2"]
    tokens: Int[Tensor, "batch option"]
    offered: Bool[Tensor, "batch option"]
    evidence: Int[Tensor, "batch decision 2"]
    early: ChainRows
    late: ChainRows
    shortlist: Int[Tensor, "batch span 3"]
    near: Int[Tensor, "batch miss 3"]
    gold: Int[Tensor, "batch decision"]
    near_options: Int[Tensor, "batch pair 2"]

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], rows: Rows = "options") -> "Marks":
        """The marks of a batch of `stream.Collator`, or of a `batches.completed` one.

        Its `queries` are those of `choose_queries`; where it has none, every token is one.
        """
        question, length = batch["question"][:, None], batch["length"][:, None]
        spans, decisions, evidence = batch["option_spans"], batch["decisions"], batch["evidence"]
        offered = spans[..., 1] > spans[..., 0]
        decided = decisions >= 0
        places = torch.arange(batch["input_ids"].shape[1], device=question.device)
        first = {
            "all": torch.zeros_like(question),
            "options": spans[..., 0].masked_fill(~offered, len(places)).amin(dim=1, keepdim=True),
            "target": question - 1,
        }[rows]
        ends = (spans[..., 1] - 1).clamp(min=0)
        rows_at = (places >= first) & (places < length)
        queries = batch["queries"] if "queries" in batch else places.expand(len(length), -1)
        return cls(
            real=places < length,
            rows=rows_at,
            queries=queries,
            compared=rows_at.gather(1, queries.clamp(min=0)) & (queries >= 0),
            targets=(
                batch["targets"]
                if "targets" in batch
                else (places >= question - 1) & (places < length - 1)
            ),
            labels=batch["labels"],
            weights=batch["weights"],
            decisions=decisions.clamp(min=0),
            decision_rows=_where_in(queries, decisions),
            decided=decided,
            asked=decided & (evidence[..., 1] > evidence[..., 0]),
            samples=torch.cat([decisions.clamp(min=0), ends], dim=1),
            sampled=torch.cat([decided, offered], dim=1),
            spans=spans,
            tokens=batch["option_tokens"],
            offered=offered,
            evidence=evidence,
            early=ChainRows.of(batch, "early", queries),
            late=ChainRows.of(batch, "late", queries),
            shortlist=batch.get("shortlist", spans.new_zeros(len(spans), 0, 3)),
            near=batch.get("near", spans.new_zeros(len(spans), 0, 3)),
            gold=batch.get("gold", torch.full_like(decisions, -1)),
            near_options=batch.get("near_options", spans.new_zeros(len(spans), 0, 2)),
        )

    @property
    def read_at(self) -> Int[Tensor, "batch position"]:
        """Where what heads write is read: the samples, the early and the late rows."""
        return torch.cat([self.samples, self.early.positions, self.late.positions], dim=1)

    def among_read(self, what: Written) -> slice:
        """Where in `read_at` these are."""
        sizes = {
            "decisions": self.decisions.shape[1],
            "samples": self.samples.shape[1],
            "early": self.early.positions.shape[1],
            "late": self.late.positions.shape[1],
        }
        start = {"early": sizes["samples"], "late": sizes["samples"] + sizes["early"]}.get(what, 0)
        return slice(start, start + sizes[what])

    def exist(self, what: Written | Looking) -> Bool[Tensor, "batch place"]:
        """Which of these there are."""
        if what == "samples":
            return self.sampled
        return getattr(self, what).there if what in ("early", "late") else self.decided

    def count_rows(self, chosen: Shaped[Tensor, "batch row"], per: Per) -> Float[Tensor, ""]:
        """Count of a loss that is a sum over these rows, or over examples that have any."""
        zeros = torch.zeros(chosen.shape, device=chosen.device)
        return weighted_sum(zeros, chosen.float(), per)[1]

    def count_samples(self, debiased: bool) -> Float[Tensor, ""]:
        """Count of a loss by CKA over the samples."""
        return sample_count(self.sampled, debiased)


def _where_in(
    queries: Int[Tensor, "batch row"], places: Int[Tensor, "batch place"]
) -> Int[Tensor, "batch place"]:
    """The row of each position; 0 where it has none."""
    return (queries[:, None] == places[..., None].clamp(min=0)).long().argmax(dim=-1)


@fused
def sampled_positions(batch: Mapping[str, Tensor], rows: Rows) -> Int[Tensor, "batch position"]:
    """Where what heads write is read."""
    return Marks.of(batch, rows).read_at


def choose_queries(
    batch: Mapping[str, Tensor], rows: Rows, looks: Collection[Looks]
) -> Int[Tensor, "batch row"]:
    """Positions of each example whose attention losses look at, rising, then -1.

    How many there are decides a shape: on a device the host waits for it, so it is done where
    batches are made.
    """
    marks = Marks.of(batch, rows)
    chosen = torch.zeros_like(marks.rows)
    places = torch.arange(chosen.shape[1], device=chosen.device)
    if "rows" in looks:
        chosen |= marks.rows
    if "decisions" in looks:
        chosen |= ((places == marks.decisions[..., None]) & marks.decided[..., None]).any(dim=1)
    for name, one in (("early", marks.early), ("late", marks.late)):
        if name in looks:
            times = torch.zeros(chosen.shape, dtype=torch.long, device=chosen.device)
            chosen |= times.scatter_add(1, one.positions, one.there.long()) > 0
    if "options" in looks:
        start, stop = marks.spans[..., :1], marks.spans[..., 1:]
        chosen |= ((places >= start) & (places < stop)).any(dim=1)
    first = chosen.long().argsort(dim=1, descending=True, stable=True)
    queries = torch.where(chosen.gather(1, first), first, -1)
    return queries[:, : max(1, int(chosen.sum(dim=1).max()))]
