"""What became of the documents that prompts were asked of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

DEPTHS = (20, 100, 1000)
"""Labels retrieved, within which gold labels are counted."""


@dataclass(frozen=True)
class Guess:
    """How far one comes without reading: by an order of the options that needs no evidence.

    Attributes:
        name: what picks.
        right: share of the prompts in which gold comes first among gold, near and far; ties count
            by their share.
        chance: the same of an order at random.
        auc: how often gold comes before a far option; 0.5 by chance.
    """

    name: str
    right: float
    chance: float
    auc: float

    def __str__(self) -> str:
        return f"{self.name}: right {self.right:.2f} (chance {self.chance:.2f}), AUC {self.auc:.2f}"


def guess(
    name: str, scores: Sequence[tuple[float, Sequence[float], Sequence[float]]]
) -> Guess | None:
    """The guess by scores of gold, near and far options, a triple a prompt; None without any."""
    if not scores:
        return None
    right, chance, auc = [], [], []
    for gold, near, far in scores:
        rest = np.array([*near, *far])
        right.append((rest <= gold).all() / (1 + (rest == gold).sum()))
        chance.append(1 / (1 + len(rest)))
        auc.append(np.mean((np.array(far) < gold) + 0.5 * (np.array(far) == gold)))
    return Guess(name, float(np.mean(right)), float(np.mean(chance)), float(np.mean(auc)))


@dataclass(frozen=True)
class ShortlistReport:
    """What became of the documents that prompts were asked of.

    Attributes:
        n_documents: tried.
        n_used: made into a prompt.
        n_gold: gold labels of the documents tried.
        n_found: of these, how many are among the first k retrieved, by k.
        dropped: documents that gave no prompt, by reason.
        told: number of sentences that tell the decided label → prompts.
        n_left_out: of the sentences told, those that a counterfactual leaves out rather than
            replaces, two counterfactuals a prompt.
        n_still_told: gold labels passed over since a counterfactual told them all the same.
        n_cut: prompts that do not hold their whole document; `max_tokens`: why.
        n_random: far options drawn at random, since too few were retrieved.
        n_own_words: counterfactuals, two a prompt, in which an option's own words are the evidence.
        n_elsewhere: prompts whose document says the gold label outside the evidence given, too.
        guesses: how far one comes without the evidence.
    """

    n_documents: int
    n_used: int
    n_gold: int
    n_found: Mapping[int, int]
    dropped: Mapping[str, int]
    told: Mapping[int, int] = field(default_factory=Counter)
    n_left_out: int = 0
    n_still_told: int = 0
    n_cut: int = 0
    max_tokens: int = 0
    n_random: int = 0
    n_own_words: int = 0
    n_elsewhere: int = 0
    guesses: tuple[Guess, ...] = ()

    @property
    def gold_recall(self) -> dict[int, float]:
        """Share of the gold labels among the first k retrieved, by k; nan without gold labels."""
        n_gold = self.n_gold or float("nan")
        return {k: found / n_gold for k, found in self.n_found.items()}

    @property
    def lines(self) -> list[str]:
        """For people, a line each."""
        why = ", ".join(f"{number} {reason}" for reason, number in self.dropped.items())
        recall = ", ".join(f"@{k} {share:.3f}" for k, share in self.gold_recall.items())
        told = ", ".join(f"{number} in {n}" for n, number in sorted(self.told.items()))
        lines = [
            f"{self.n_used} prompts of {self.n_documents} documents"
            f"{f' ({why})' if why else ''}; gold recall {recall}",
            f"sentences that tell the decided label: {told}; in the counterfactuals "
            f"{self.n_left_out} are left out, the others replaced",
        ]
        if self.n_still_told:
            lines.append(
                f"{self.n_still_told} gold labels passed over: a counterfactual told them elsewhere"
            )
        if self.n_cut:
            lines.append(
                f"{self.n_cut} of {self.n_used} prompts leave out passages of their documents, to "
                f"fit into {self.max_tokens} tokens (--max-tokens)"
            )
        if self.n_random:
            lines.append(f"{self.n_random} far options are random, since too few were retrieved")
        if self.n_elsewhere:
            lines.append(
                f"in {self.n_elsewhere} events the document names the gold label outside its "
                "evidence, too, where counterfactuals leave it"
            )
        if self.n_own_words:
            lines.append(
                f"in {self.n_own_words} of {2 * self.n_used} counterfactuals an option's own words "
                "are the evidence: no other document has any for it"
            )
        if self.guesses:
            lines.append("without reading: " + "; ".join(map(str, self.guesses)))
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines)
