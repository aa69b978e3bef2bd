"""Plans prompts of one corpus: what tells a label, which options stand beside it, the swaps."""

import random
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from workbench.labels.corpus import Document, LabelledCorpus
from workbench.labels.space import Label
from workbench.labels.words import find_words
from workbench.prompts.sentences import cut
from workbench.prompts.shortlists.options import OptionChooser
from workbench.prompts.shortlists.plan import Dropped, Edit, Plan, StillTold, ToldDocument
from workbench.prompts.shortlists.sizes import ShortlistConfig
from workbench.prompts.shortlists.strangers import Strangers
from workbench.prompts.telling import Teller, Told

_RANDOM = 200
"""Labels drawn where too few were retrieved."""


class Planner:
    """Plans the prompts of a corpus.

    Args:
        corpus: labelled documents.
        split: where the prompts' own documents come from; they are numbered first.
        tokenizer: the model's.
        config: sizes.
        seed: of the sentences that are looked for.
    """

    def __init__(
        self, corpus: LabelledCorpus, split: str, tokenizer: Any, config: ShortlistConfig, seed: int
    ) -> None:
        self._config = config
        self._name, self._ids, self._texts = corpus.name, corpus.label_ids, corpus.label_texts
        own = list(islice(corpus.documents(split), config.n_read))
        self.n_own = len(own)
        others = [other for other in corpus.splits if other != split]
        self.read = own + [
            document
            for other in others
            for document in islice(corpus.documents(other), config.n_read)
        ]
        self._known: dict[int, ToldDocument] = {}
        self._teller = Teller(corpus, config.min_overlap)
        self._strangers = Strangers(self.read, self.document, self._teller, tokenizer, seed)
        self._options = OptionChooser(corpus, config)
        self.clusters = self._options.clusters

    def document(self, number: int) -> ToldDocument:
        """The document of a number, with what tells its labels."""
        if number not in self._known:
            self._known[number] = self._told(self.read[number])
        return self._known[number]

    def _told(self, document: Document) -> ToldDocument:
        """The document with the sentences that its source gives, or that are found."""
        text, given = document.full_text, document.evidence is not None
        spans = [(start, end) for _, start, end in document.evidence or ()]
        apart = list(dict.fromkeys(spans))
        parts = cut(text, apart)
        told: dict[int, tuple[Told, ...]] = {}
        if given:
            place = dict(zip(apart, parts.apart, strict=True))
            for (label, *_), span in zip(document.evidence or (), spans, strict=True):
                told[label] = (*told.get(label, ()), Told(place[span], 1.0))
        else:
            told = self._teller.told_of_all(parts.sentences, document.labels)
        return ToldDocument(document.labels, document.ignored, text, parts, told, given)

    def plan(
        self,
        prompt_id: str,
        number: int,
        gold: int,
        found: Sequence[int],
        share: float,
        rng: random.Random,
    ) -> tuple[Plan, int]:
        """What a prompt about a gold label is to hold, and how many of its far options are random.

        Args:
            prompt_id: of the prompt.
            number: of the document.
            gold: the label that is decided about.
            found: labels retrieved for the document, best first.
            share: of the far options that are to be retrieved before gold.
            rng: of every choice.

        Raises:
            Dropped: with the reason; `StillTold` where a counterfactual tells gold all the same.
        """
        document, config = self.document(number), self._config
        barred = {*document.labels, *document.ignored}
        near = self._options.wrong(self._options.near(gold), document.labels, barred)
        near = self._first_told(near, number, gold, config.n_near)
        if not near:
            raise Dropped("without a near option")
        evidence = document.main(gold).sentence
        others = self._others(document, gold, found)
        far, n_random = self._far(number, [gold, *near, *others], found, share, rng)
        if not far:
            raise Dropped("without a far option")
        candidates = [gold, *near, *far, *others]
        rng.shuffle(candidates)
        edits, told_by, own_words = [], [], 0
        tellers = far if document.given else [*filter(self._stands_in(number, gold), far)]
        for name, options in (("far", tellers), ("near", near)):
            swap = self._strangers.edit(number, gold, evidence, options, rng)
            if swap is None:
                if not document.given:
                    raise Dropped(f"without another document's sentence for a {name} option")
                option = rng.choice(options)
                said = " ".join(rng.choice(self._teller.wordings[option]).split())
                edit: Edit = {told.sentence: said for told in document.told[gold]}
                swap, own_words = (option, edit), own_words + 1
            told_by.append(swap[0])
            edits.append(swap[1])
        plan = Plan(
            id=prompt_id,
            document=document,
            gold=gold,
            others=tuple(others),
            evidence=evidence,
            near=tuple(near),
            far=tuple(far),
            candidates=tuple(candidates),
            labels={
                label: Label(self._ids[label], " ".join(self._texts[label].split()), (self._name,))
                for label in candidates
            },
            edits=(edits[0], edits[1]),
            told_by=(told_by[0], told_by[1]),
            n_own_words=own_words,
        )
        if not document.given:
            for edit, by in zip(plan.edits, told_by, strict=True):
                if self.is_told(plan, edit, by):
                    raise StillTold("with a gold label that a counterfactual tells all the same")
        return plan, n_random

    def is_told(self, plan: Plan, edit: Edit, by: int) -> bool:
        """Whether a variant of the document tells gold, by its sentences or word by word.

        Args:
            plan: of the prompt.
            edit: of the variant.
            by: the label that the variant tells in gold's place.
        """
        kept = [edit.get(at, said) for at, said in enumerate(plan.document.cut.sentences)]
        sentences = [said for said in kept if said is not None]
        if self._teller.says(plan.document.edited(edit), plan.gold):
            return True
        return bool(self._teller.told(sentences, plan.gold, [*plan.document.labels, by]))

    def is_elsewhere(self, plan: Plan) -> bool:
        """Whether a document says gold, or its evidence, word by word outside of the evidence."""
        rest = plan.document.edited(dict.fromkeys(plan.changed))
        held = plan.document.cut.sentences[plan.evidence]
        return self._teller.says(rest, plan.gold) or find_words(rest, held) is not None

    def _others(self, document: ToldDocument, gold: int, found: Sequence[int]) -> list[int]:
        """Further gold labels, told in sentences of their own, those nearest to gold's first.

        Of labels that one sentence tells, only the one that it tells best.
        """
        chosen = document.main(gold).sentence
        taken = {told.sentence for told in document.told[gold]}
        best: dict[int, tuple[float, int]] = {}
        for label in document.labels:
            offered = self._config.as_given or label in found
            if label == gold or not offered or not document.told.get(label):
                continue
            main = document.main(label)
            if main.sentence not in taken:
                rival = best.get(main.sentence, (-1.0, -1))
                best[main.sentence] = max(rival, (main.overlap, label))
        nearest = sorted(best, key=lambda at: (abs(at - chosen), at))
        labels = [best[at][1] for at in nearest]
        return self._options.distinct(labels, [gold], self._config.n_mentions - 1)

    def _first_told(self, labels: Sequence[int], number: int, gold: int, most: int) -> list[int]:
        """The first labels; the last is one that other documents tell, if none before it is."""
        distinct = self._options.distinct(labels, [gold], len(labels))
        return self._options.around(
            distinct, 0, min(most, len(distinct)), 0, self._is_told_elsewhere(number, gold)
        )

    def _is_told_elsewhere(self, number: int, gold: int) -> Callable[[int], bool]:
        return lambda option: bool(self._strangers.sentences(number, gold, option))

    def _stands_in(self, number: int, gold: int) -> Callable[[int], bool]:
        """Whether other documents tell a far option, and who says its words does not say gold."""
        told = self._is_told_elsewhere(number, gold)
        return lambda far: told(far) and not self._teller.told([self._texts[far]], gold)

    def _far(
        self,
        number: int,
        before: Sequence[int],
        found: Sequence[int],
        share: float,
        rng: random.Random,
    ) -> tuple[list[int], int]:
        """Far options, and how many of them are random; `before` are those chosen, gold first."""
        document, gold = self.document(number), before[0]
        barred = {*document.labels, *document.ignored, *self._options.near(gold)}

        def may_be(labels: Sequence[int]) -> list[int]:
            wrong = self._options.wrong(labels, document.labels, barred)
            return [label for label in wrong if not self._teller.says(document.text, label)]

        rank = rank_of(found, gold)
        n_before = len(may_be(found[:rank]))
        pool = self._options.distinct(may_be(found), before, len(found))
        n_far = self._config.n_candidates - len(before)
        far = self._options.around(
            pool,
            min(n_before, len(pool)),
            min(n_far, len(pool)),
            round(share * n_far),
            self._stands_in(number, gold),
        )
        lacking = n_far - len(far)
        if lacking > 0:
            drawn = rng.sample(range(len(self._texts)), min(len(self._texts), _RANDOM))
            fresh = [label for label in may_be(drawn) if label not in far]
            far += self._options.distinct(fresh, [*before, *far], lacking)
        return far, max(0, len(far) - n_far + lacking)


def rank_of(found: Sequence[int], label: int) -> int:
    """The place of a label among those retrieved, behind all where it was not."""
    return found.index(label) if label in found else len(found)
