"""A chain of thought with the places that the chain scores read: anchors, shortlist, near misses.

A *reading* is of one chain: the document with its candidates, then what was written. It knows

- *anchors*: the evidence of the document, and the texts of the labels of the families that it
  mentions;
- *shortlist*: where the chain lists a label;
- *decisions*: a gold label and its near misses, and which decision each chain token belongs to.

For chains of our tasks all of it is known from the task (`case_readings`); in chains of one's own
labels and evidence are found by their words (`matching`).

Queries are the positions just before chain tokens: *early* ones before the first tokens, *late*
ones before those after t*.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings
from workbench.prompts.prompt import Span

How = Literal["exact", "matched"]
STAGE_ENDS = (10, 20, 35, 50)
"""Chain tokens after which the paper begins a new stage; the last stage is open."""


@settings
class ChainSettings:
    """What early, late and stages are.

    Raises:
        InputError: a value outside its range, or stages that do not rise.
    """

    n_early: Annotated[
        int, Field(ge=1, description="Chain tokens that count as early, of those before t*.")
    ] = 30
    t_star: Annotated[
        float, Field(ge=0, le=1, description="Share of the chain after which tokens are late.")
    ] = 0.5
    stage_ends: Annotated[
        tuple[int, ...], Field(description="Chain tokens after which a new stage begins.")
    ] = STAGE_ENDS
    anchor: Annotated[
        Literal["stream", "unembedding"],
        Field(
            description="What a write is compared with: the residual stream at the anchors, where "
            "the head reads it, or the anchors' own rows of the unembedding. Both are centred."
        ),
    ] = "stream"
    sink_share: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="A token of the prompt with this mean share of all heads' attention is a "
            "sink; so is the first token.",
        ),
    ] = 0.05

    def __post_init__(self) -> None:
        ends = (0, *self.stage_ends)
        if any(a >= b for a, b in pairwise(ends)):
            raise InputError(f"stage_ends {list(self.stage_ends)} must rise from 1")

    def stage(self, token: int) -> int:
        """Number of the stage that a chain token (from 0) lies in."""
        return sum(token >= end for end in self.stage_ends)

    @property
    def stages(self) -> list[str]:
        """Names of the stages: "1–10" and so on, in chain tokens from 1."""
        starts = [1, *(end + 1 for end in self.stage_ends)]
        names = [f"{a}–{b}" for a, b in zip(starts, self.stage_ends, strict=False)]
        return [*names, f"{starts[-1]}+"]


@dataclass(frozen=True)
class LabelPlaces:
    """A label of a reading, and where it stands; spans are half-open token positions.

    Attributes:
        label: its id.
        family: number of its family; near misses are of one family.
        next_tokens: tokens that say it, as next token, against its near misses.
        document: where the document has its text.
        listed: where the chain lists it.
    """

    label: str
    family: int
    next_tokens: tuple[int, ...]
    document: tuple[Span, ...] = ()
    listed: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Decision:
    """A gold label, its near misses and its evidence, as indices into the reading's own."""

    event: int
    gold: int
    near: tuple[int, ...]
    evidence: tuple[int, ...] = ()

    @property
    def members(self) -> tuple[int, ...]:
        """Gold first."""
        return (self.gold, *self.near)


@dataclass(frozen=True)
class ChainReading:
    """One chain, with the places of everything that is read of it.

    Attributes:
        id: of the prompt.
        tokens: document, candidates and chain.
        start: index of the first token of the chain, behind the cue that opens it.
        labels: all candidates.
        evidence: spans of the document, of any decision.
        decisions: what is decided.
        asked: for each chain token the index of the decision that it belongs to; -1 for none.
        ends: chain tokens that are there after each step.
        how: whether places are the task's own, or were found by matching.
        texts: of the labels, for embeddings.
        evidence_texts: likewise.
    """

    id: str
    tokens: tuple[int, ...] = field(repr=False)
    start: int
    labels: tuple[LabelPlaces, ...] = field(repr=False)
    evidence: tuple[Span, ...]
    decisions: tuple[Decision, ...]
    asked: tuple[int, ...] = field(repr=False)
    ends: tuple[int, ...] = ()
    how: How = "exact"
    texts: tuple[str, ...] = field(default=(), repr=False)
    evidence_texts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def n_chain(self) -> int:
        """Tokens of the chain."""
        return len(self.tokens) - self.start

    @property
    def n_families(self) -> int:
        """Families of the candidates."""
        return 1 + max((label.family for label in self.labels), default=-1)

    @property
    def relevant(self) -> tuple[int, ...]:
        """Families with a gold label, in order."""
        return tuple(sorted({self.labels[one.gold].family for one in self.decisions}))

    def query(self, token: int) -> int:
        """Position just before a chain token (from 0)."""
        return self.start + token - 1

    def early(self, given: ChainSettings) -> list[int]:
        """Chain tokens that count as early."""
        return [at for at in range(min(given.n_early, self.n_chain)) if not self._late(at, given)]

    def late(self, given: ChainSettings) -> list[int]:
        """Chain tokens after t*."""
        return [at for at in range(self.n_chain) if self._late(at, given)]

    def _late(self, token: int, given: ChainSettings) -> bool:
        return token >= given.t_star * self.n_chain

    def known_from(self, decision: Decision) -> int | None:
        """First chain token by which all members of a decision were listed; None if never.

        Members that the chain never lists do not count, as long as gold and one other are there.
        """
        listed = [self.labels[at].listed for at in self.members(decision)]
        if len(listed) < 2:
            return None
        return max(spans[0][1] for spans in listed) - self.start

    def members(self, decision: Decision) -> tuple[int, ...]:
        """Labels of a decision that the chain lists, gold first; none where gold is not listed."""
        found = [at for at in decision.members if self.labels[at].listed]
        return tuple(found) if decision.gold in found else ()

    def compared(self, decision: int) -> list[int]:
        """Chain tokens of a decision that follow its whole shortlist, any share of the chain."""
        known = self.known_from(self.decisions[decision])
        if known is None:
            return []
        return [at for at, asked in enumerate(self.asked) if asked == decision and at >= known]


def last_listed(
    labels: Sequence[LabelPlaces], decisions: Sequence[Decision], start: int, n_chain: int
) -> list[int]:
    """For each chain token the decision of which a member was listed last; -1 before any."""
    ends = sorted(
        (end, number)
        for number, decision in enumerate(decisions)
        for at in decision.members
        for _, end in labels[at].listed
    )
    asked, last = [], -1
    for token in range(n_chain):
        while ends and ends[0][0] <= start + token:
            last = ends.pop(0)[1]
        asked.append(last)
    return asked


def coverage(readings: Sequence[ChainReading], given: ChainSettings) -> pd.DataFrame:
    """What was found: share of chains with each kind of span, and of chain tokens that are read.

    Columns: what, share (0 to 1), n (chains, or chain tokens). "evidence", "labels in document" and
    "labels listed" are chains with one at least; "gold listed" with a gold label, "near listed"
    with a near miss; "shortlist" with a gold label and a near miss of one decision; "far families"
    with a family that no decision is about, without which there is no null; "early tokens" and
    "late tokens, compared" are shares of the chain tokens.
    """
    n_tokens = sum(one.n_chain for one in readings)

    def chains(what: str, has: Any) -> dict[str, Any]:
        found = sum(bool(has(one)) for one in readings)
        return {"what": what, "share": found / max(len(readings), 1), "n": len(readings)}

    def tokens(what: str, of: Any) -> dict[str, Any]:
        return {"what": what, "share": sum(map(of, readings)) / max(n_tokens, 1), "n": n_tokens}

    def listed(one: ChainReading, role: str) -> bool:
        return any(
            one.labels[at].listed
            for decision in one.decisions
            for at in ((decision.gold,) if role == "gold" else decision.near)
        )

    def compared(one: ChainReading) -> int:
        late = set(one.late(given))
        return sum(len(late & set(one.compared(at))) for at in range(len(one.decisions)))

    rows = [
        chains("exact", lambda one: one.how == "exact"),
        chains("evidence", lambda one: one.evidence),
        chains("labels in document", lambda one: any(x.document for x in one.labels)),
        chains("labels listed", lambda one: any(x.listed for x in one.labels)),
        chains("gold listed", lambda one: listed(one, "gold")),
        chains("near listed", lambda one: listed(one, "near")),
        chains("shortlist", lambda one: any(one.known_from(x) is not None for x in one.decisions)),
        chains("far families", lambda one: len(one.relevant) < one.n_families),
        tokens("early tokens", lambda one: len(one.early(given))),
        tokens("late tokens, compared", compared),
    ]
    return pd.DataFrame(rows)
