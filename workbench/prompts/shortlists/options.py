"""Which labels a prompt offers beside the right ones."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np
from jaxtyping import Int

from workbench.labels.corpus import LabelledCorpus
from workbench.labels.kin import kinship
from workbench.labels.neighbours import TfidfConfig, nearest_labels
from workbench.labels.space import LabelSpace
from workbench.labels.words import comparable
from workbench.prompts.shortlists.sizes import ShortlistConfig

_WIDEST = 100
"""Labels of a node that is still near a label of it; a quarter of all at most."""


class OptionChooser:
    """Chooses near and far options.

    Near ones are of the decided label's cluster, or nearest to it where the labels have no
    taxonomy. Far ones are those retrieved for the document just before and just behind the decided
    label, so that its rank does not give it away. No ancestor or descendant of a right label is
    offered.
    """

    def __init__(self, corpus: LabelledCorpus, config: ShortlistConfig) -> None:
        self._texts, self._config = corpus.label_texts, config
        self._related = kinship(corpus)
        self._neighbours: Int[np.ndarray, "label near"] = nearest_labels(
            self._texts, config.n_neighbours, TfidfConfig(min_df=config.min_df)
        ).labels
        self._ids = corpus.label_ids
        space = getattr(corpus, "space", None)
        self._space = space if isinstance(space, LabelSpace) else None
        self._below: defaultdict[str, list[int]] = defaultdict(list)
        for label in range(len(self._texts)):
            for node in self._nodes(label):
                self._below[node].append(label)
        self.clusters = [corpus.cluster(label) for label in range(len(self._texts))]
        self._members: defaultdict[str, list[int]] = defaultdict(list)
        for label, cluster in enumerate(self.clusters):
            if cluster is not None:
                self._members[cluster].append(label)

    def near(self, gold: int) -> list[int]:
        """Near misses, best first: of the label's cluster, or its nearest labels without one.

        Behind those of the cluster stand those of the taxonomy's wider nodes around it.
        """
        nearest = [label for label in self._neighbours[gold].tolist() if label >= 0]
        cluster = self.clusters[gold]
        members = [] if cluster is None else self._members[cluster]
        if self._config.as_given:
            return self._of_nodes([members], nearest, gold) if members else nearest
        most = min(_WIDEST, len(self._texts) // 4)
        around = (self._below[node] for node in self._nodes(gold))
        wider = [members, *(below for below in around if len(below) <= most)]
        return self._of_nodes(wider, nearest, gold) or nearest

    def _of_nodes(
        self, nodes: Sequence[Sequence[int]], nearest: Sequence[int], gold: int
    ) -> list[int]:
        """Labels of one node after the other, the nearest of each first."""
        found = dict.fromkeys([gold])
        for members in nodes:
            inside = set(members)
            found |= dict.fromkeys(label for label in nearest if label in inside)
            found |= dict.fromkeys(members)
        return list(found)[1:]

    def _nodes(self, label: int) -> tuple[str, ...]:
        """Taxonomy nodes above a label, nearest first."""
        return () if self._space is None else self._space[self._ids[label]].ancestors

    def wrong(self, labels: Sequence[int], golds: Sequence[int], barred: set[int]) -> list[int]:
        """Those that are neither barred nor an ancestor or descendant of a right label."""
        return [
            label
            for label in labels
            if label not in barred and not any(self._related(label, gold) for gold in golds)
        ]

    def distinct(self, labels: Sequence[int], before: Sequence[int], most: int) -> list[int]:
        """The first labels that have a text, none of them twice or that of one before."""
        texts = {self._shown(label) for label in before}
        chosen: list[int] = []
        for label in labels:
            if len(chosen) == most:
                break
            text = self._shown(label)
            if text and text not in texts:
                chosen.append(label)
                texts.add(text)
        return chosen

    def around(
        self, pool: Sequence[int], rank: int, n: int, above: int, first: Callable[[int], bool]
    ) -> list[int]:
        """`n` of the pool next to a rank, `above` of them before it where there are so many.

        If none of them is one of the `first`, the last taken gives way to the nearest that is.
        """
        before, behind = [*reversed(pool[:rank])], [*pool[rank:]]
        above = max(min(above, len(before)), n - len(behind))
        chosen = before[:above] + behind[: n - above]
        if not any(map(first, chosen)):
            further = zip_longest(before[above:], behind[n - above :])
            rest = (label for pair in further for label in pair if label is not None)
            wanted = next((label for label in rest if first(label)), None)
            if wanted is not None:
                chosen = [*chosen[:-1], wanted]
        return chosen

    def _shown(self, label: int) -> str:
        return comparable(" ".join(self._texts[label].split()))


class Balance:
    """Keeps the decided labels spread evenly over the ranks among the options.

    Args:
        seed: of the order in which places are wanted.
    """

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)
        self._shares: list[float] = []

    def wanted(self) -> float:
        """The share of far options that are to come before gold, so that half do on average."""
        mean = sum(self._shares) / len(self._shares) if self._shares else 0.5
        low, high = (0.5, 1.0) if mean < 0.5 else (0.0, 0.5) if mean > 0.5 else (0.0, 1.0)
        return self._rng.uniform(low, high)

    def add(self, above: int, n: int) -> None:
        """So many of `n` came before."""
        self._shares.append(above / n)
