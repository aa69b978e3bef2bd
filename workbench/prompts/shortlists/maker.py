"""Prompts from labelled documents: a document, and a shortlist from the whole label set.

For each document:
1. *Candidates* are retrieved from all labels. Gold labels that were not found are counted and not
   offered.
2. *Evidence* of a gold label are all sentences that tell it (`workbench.prompts.telling`); what is
   called the evidence of the event is the one that tells it best.
3. *Options*: gold labels; near ones, of the decided label's cluster or nearest to it where the
   labels have no taxonomy; far ones, retrieved next to the decided label (`OptionChooser`).
4. *Counterfactuals*: each of these sentences is replaced by a sentence of another document that
   tells a far or a near option, of as many tokens if there is one; where that option is told in
   fewer, the last ones are left out. Where gold is told all the same, another gold label is tried.

The document stands before the options, so that what follows the evidence is the aligned suffix.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np

from workbench.errors import InputError
from workbench.labels.corpus import Document, LabelledCorpus
from workbench.labels.retrieving.retriever import Retriever
from workbench.labels.words import words
from workbench.prompts.meaning import check_meaning
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.prompts.shortlists.options import Balance
from workbench.prompts.shortlists.plan import Dropped, Plan, StillTold
from workbench.prompts.shortlists.planner import Planner, rank_of
from workbench.prompts.shortlists.report import DEPTHS, ShortlistReport, guess
from workbench.prompts.shortlists.sizes import DEFAULT_SIZES, ShortlistConfig

_ENOUGH = 1000
"""Training documents from which on they are examples; fewer know too few of the labels."""
_AT_ONCE = 64
"""Documents whose labels are retrieved together."""


@runtime_checkable
class Writer(Protocol):
    """Writes planned prompts for a model."""

    def event(self, plan: Plan) -> tuple[DecisionEvent, bool]:
        """The event; whether it leaves out some of its document.

        Raises:
            Dropped: with the reason.
        """
        ...


@runtime_checkable
class Finder(Protocol):
    """Finds labels of documents, as `Retriever` does."""

    def top_documents(self, documents: Sequence[Document], k: int) -> np.ndarray:
        """Positions of the `k` best labels of every document, best first; -1 where fewer are."""
        ...


def default_ways(corpus: LabelledCorpus) -> tuple[str, ...]:
    """How labels of a corpus are retrieved unless ways are chosen for it (`workbench retrieve`).

    By clauses and passages; by labels' long texts where there are any, and by training documents
    where there are `_ENOUGH` of them.
    """
    ways = ["chars-clauses", "bm25-passages"]
    if "train" in corpus.splits:
        n_train = sum(1 for _ in islice(corpus.documents("train"), _ENOUGH))
        ways += ["examples"] if n_train == _ENOUGH else []
    long = getattr(corpus, "label_contents", None)
    return (*ways, "bm25-long") if long and any(long) else tuple(ways)


def make_shortlisted(
    corpus: LabelledCorpus,
    split: str,
    writer: Writer,
    tokenizer: Any,
    *,
    n_prompts: int,
    seed: int,
    task: str | None = None,
    config: ShortlistConfig = DEFAULT_SIZES,
    retriever: Finder | None = None,
) -> tuple[PromptSet, ShortlistReport]:
    """Prompts from documents of a split in random order, one decision event each.

    Fewer than asked where the split has no more. Prompt i is the same whatever `n_prompts`.

    Args:
        corpus: labelled documents; sentences for counterfactuals come from all its splits.
        split: where the prompts' own documents come from.
        writer: writes prompts: `Asked` in a form, `Numbered` in a template of mentions.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        n_prompts: how many prompts.
        seed: of the order and of every choice.
        task: what the prompt set is called; the corpus' name by default.
        config: sizes.
        retriever: of the corpus; in `default_ways` by default.

    Raises:
        InputError: no such split, no document gives a prompt, an option name that is not one
            token, or a line of the corpus that is not as it should be.
    """
    if n_prompts < 1:
        raise InputError(f"n_prompts is {n_prompts}, must be at least 1")
    maker = _Maker(corpus, split, writer, tokenizer, config, retriever, seed)
    order = list(range(maker.n_own))
    random.Random(f"{seed}:shortlist").shuffle(order)
    events: dict[int, DecisionEvent] = {}
    dropped: Counter[str] = Counter()
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        maker.retrieve(some)
        for number in some:
            if len(events) == n_prompts:
                break
            rng = random.Random(f"{seed}:shortlist:{number}")
            try:
                events[number] = maker.event(f"p{len(events)}", number, rng)
            except Dropped as reason:
                dropped[str(reason)] += 1
        if len(events) == n_prompts:
            break
    reasons = dict(sorted(dropped.items()))
    if not events:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it is empty"
        raise InputError(
            f"corpus {corpus.name!r}, split {split!r}: no document gives a prompt: {why}"
        )
    in_order = sorted(events) if config.as_given else list(events)
    made = tuple(events[number] for number in in_order)
    return PromptSet(task or corpus.name, made), maker.report(reasons)


@dataclass
class _Tally:
    """What is counted on the way."""

    told: Counter[int]
    n_gold: int = 0
    n_used: int = 0
    n_left_out: int = 0
    n_still_told: int = 0
    n_cut: int = 0
    n_random: int = 0
    n_own_words: int = 0
    n_elsewhere: int = 0


class _Maker:
    """Makes the events of one corpus, and counts on the way."""

    def __init__(
        self,
        corpus: LabelledCorpus,
        split: str,
        writer: Writer,
        tokenizer: Any,
        config: ShortlistConfig,
        retriever: Finder | None,
        seed: int,
    ) -> None:
        self.config, self._writer = config, writer
        self._texts = corpus.label_texts
        self._planner = Planner(corpus, split, tokenizer, config, seed)
        self.n_own = self._planner.n_own
        self._ranks: dict[int, list[int]] = {}
        self._retriever = retriever or Retriever(corpus, default_ways(corpus))
        self._balance = Balance(f"{seed}:balance")
        self._tally = _Tally(Counter())
        self._n_found = dict.fromkeys(
            sorted({k for k in DEPTHS if k < config.n_retrieved} | {config.n_retrieved}), 0
        )
        self._by_rank: list[tuple[float, list[float], list[float]]] = []
        self._by_words: list[tuple[float, list[float], list[float]]] = []

    def retrieve(self, numbers: Sequence[int]) -> None:
        """Find the labels of some documents."""
        documents = [self._planner.read[number] for number in numbers]
        found = self._retriever.top_documents(documents, self.config.n_retrieved).tolist()
        self._ranks = {
            number: [label for label in row if label >= 0]
            for number, row in zip(numbers, found, strict=True)
        }

    def event(self, prompt_id: str, number: int, rng: random.Random) -> DecisionEvent:
        """One decision about one document.

        Raises:
            Dropped: with the reason that the first of its gold labels gives none.
        """
        document, found = self._planner.document(number), self._ranks[number]
        if not document.labels:
            raise Dropped("without labels")
        self._tally.n_gold += len(document.labels)
        for k in self._n_found:
            self._n_found[k] += len(set(document.labels).intersection(found[:k]))
        if document.given and not document.told:
            raise Dropped("whose evidence is not in the text")
        as_given = self.config.as_given
        golds = [label for label in document.labels if as_given or label in found]
        if not golds:
            raise Dropped("with no gold label retrieved")
        told = [label for label in golds if document.told.get(label)]
        if not told:
            raise Dropped("with no sentence for a gold label")
        if as_given:
            prompt_id = self._planner.read[number].id
        rng.shuffle(told)
        wanted = self._balance.wanted()
        enough = wanted * self.config.n_candidates
        told.sort(key=lambda label: min(enough, rank_of(found, label)), reverse=True)
        first: Dropped | None = None
        for gold in told:
            try:
                plan, n_random = self._planner.plan(prompt_id, number, gold, found, wanted, rng)
                event, is_cut = self._writer.event(plan)
                return self._checked(event, plan, number, is_cut, n_random)
            except Dropped as reason:
                self._tally.n_still_told += isinstance(reason, StillTold)
                first = first or reason
        raise first or Dropped("with no sentence for a gold label")

    def _checked(
        self, event: DecisionEvent, plan: Plan, number: int, is_cut: bool, n_random: int
    ) -> DecisionEvent:
        """The event, which is counted."""
        try:
            check_meaning(event)
        except InputError as error:
            raise Dropped(f"whose prompt is refused ({error})") from None
        if self.config.as_given:
            event = self._with_families(event, plan)
        tally, found = self._tally, self._ranks[number]
        tally.n_used += 1
        tally.told[len(plan.changed)] += 1
        tally.n_left_out += sum(said is None for edit in plan.edits for said in edit.values())
        tally.n_cut += is_cut
        tally.n_random += n_random
        tally.n_own_words += plan.n_own_words
        tally.n_elsewhere += plan.document.given and self._planner.is_elsewhere(plan)
        rest = set(words(plan.document.edited(dict.fromkeys(plan.changed))))
        by_rank = {label: -float(rank_of(found, label)) for label in plan.candidates}
        by_words = {label: self._shared(label, rest) for label in plan.candidates}
        for scores, kept in ((by_rank, self._by_rank), (by_words, self._by_words)):
            kept.append(
                (scores[plan.gold], [scores[x] for x in plan.near], [scores[x] for x in plan.far])
            )
        above = sum(by_rank[label] > by_rank[plan.gold] for label in plan.far)
        self._balance.add(above, len(plan.far))
        return event

    def _shared(self, label: int, said: set[str]) -> float:
        """Share of a label's words that are said."""
        own = set(words(self._texts[label]))
        return len(own & said) / max(1, len(own))

    def _with_families(self, event: DecisionEvent, plan: Plan) -> DecisionEvent:
        """Options named by their clusters, where all have one."""
        clusters = self._planner.clusters
        family = {plan.labels[label].id: clusters[label] for label in plan.candidates}
        if None in family.values():
            return event
        options = tuple(replace(one, family=family[one.label]) for one in event.options)
        return replace(event, options=options, family=clusters[plan.gold])

    def report(self, dropped: dict[str, int]) -> ShortlistReport:
        """What came of it."""
        tally = self._tally
        guesses = (
            guess("the option retrieved first", self._by_rank),
            guess("most words outside the evidence", self._by_words),
        )
        return ShortlistReport(
            n_documents=tally.n_used + sum(dropped.values()),
            n_used=tally.n_used,
            n_gold=tally.n_gold,
            n_found=dict(self._n_found),
            dropped=dropped,
            told=dict(tally.told),
            n_left_out=tally.n_left_out,
            n_still_told=tally.n_still_told,
            n_cut=tally.n_cut,
            max_tokens=self.config.max_tokens,
            n_random=tally.n_random,
            n_own_words=tally.n_own_words,
            n_elsewhere=tally.n_elsewhere,
            guesses=tuple(one for one in guesses if one is not None),
        )
