"""Prompts from labelled documents: a document, and a shortlist from the whole label set.

For each document:
1. *Candidates* are retrieved from all labels with the document as query. Gold labels that were
   not found are counted (gold recall@k) and not offered.
2. *Evidence* of a gold label is the sentence that holds most of the label's words, by TF-IDF of
   characters (`workbench.prompts.support`). The document is told as numbered mentions, cut after
   each of these sentences, so that the templates of the coding task serve.
3. *Options*: the gold labels mentioned; near ones, of the decided label's cluster or nearest to it
   where the labels have no taxonomy; far ones, other retrieved labels, then random ones.
4. *Counterfactuals*: the evidence is replaced by the evidence of another document for a far or a
   near option, of as many tokens if there is one. Where no document has any, a sentence that
   quotes the option's text is made up, and counted.

The document stands before the options, so that what follows the evidence is the aligned suffix.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any

from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings
from workbench.labels.corpus import Document, LabelledCorpus
from workbench.labels.neighbours import TfidfConfig, nearest_labels
from workbench.labels.retrieval import LabelRetriever
from workbench.labels.space import Label, LabelSpace
from workbench.labels.words import comparable, find_words
from workbench.prompts.meaning import check_meaning
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.prompts.shortlist_event import Dropped, Plan, ToldDocument, longest_event, one_line
from workbench.prompts.support import Support, SupportFinder, made_up
from workbench.prompts.templates import Template

FEWEST_OPTIONS, MOST_OPTIONS = 3, 26
"""One gold, near and far each; a letter each."""
_MOST_STRANGERS = 8
"""Other documents in which a sentence for one option is looked for."""


@settings
class ShortlistConfig:
    """Size of the prompts and of the search."""

    n_candidates: Annotated[int, Field(ge=FEWEST_OPTIONS, le=MOST_OPTIONS)] = 20
    """Options of a prompt; letters name them."""
    n_near: Annotated[int, Field(ge=1)] = 4
    """Near options at most."""
    n_mentions: Annotated[int, Field(ge=1)] = 3
    """Gold labels that a prompt mentions at most, the decided one included."""
    n_retrieved: Annotated[int, Field(ge=1)] = 100
    """Labels retrieved for a document, among which a gold label must be."""
    n_neighbours: Annotated[int, Field(ge=1)] = 20
    """Nearest labels looked up where there is no taxonomy."""
    min_overlap: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of a label's TF-IDF weight that its sentence holds at least."""
    n_read: Annotated[int, Field(ge=1)] = 2000
    """Documents read of each split, from its start."""
    max_tokens: Annotated[int, Field(ge=1)] = 2048
    """A longer prompt loses the sentences that are farthest from the evidence."""
    min_df: Annotated[int, Field(ge=1)] = 2
    """Labels that a piece of their texts must occur in to make them near."""
    as_given: bool = False
    """Whether the corpus alone says what is right and near: every gold label may be offered,
    retrieved or not, only its cluster is near to it, options are of the families of their clusters,
    prompts have their documents' ids, and come in their order."""

    def __post_init__(self) -> None:
        if self.n_near + self.n_mentions >= self.n_candidates:
            raise InputError(
                f"n_near {self.n_near} and n_mentions {self.n_mentions} leave no far option among "
                f"{self.n_candidates} candidates"
            )


DEFAULT_SIZES = ShortlistConfig()


@dataclass(frozen=True)
class ShortlistReport:
    """What became of the documents that prompts were asked of.

    Attributes:
        n_documents: tried.
        n_used: made into a prompt.
        n_gold: gold labels of the documents tried.
        n_found: of these, how many are among the first k retrieved, for two k: as many as a prompt
            has candidates, and all that were retrieved.
        n_made_up: counterfactuals, two a prompt, whose sentence no document has.
        n_elsewhere: prompts whose document says the gold label outside its evidence, too.
        dropped: documents that gave no prompt, by reason.
    """

    n_documents: int
    n_used: int
    n_gold: int
    n_found: dict[int, int]
    n_made_up: int
    n_elsewhere: int
    dropped: dict[str, int]

    @property
    def gold_recall(self) -> dict[int, float]:
        """Share of the gold labels among the first k retrieved, by k; nan without gold labels."""
        n_gold = self.n_gold or float("nan")
        return {k: found / n_gold for k, found in self.n_found.items()}

    def __str__(self) -> str:
        why = ", ".join(f"{number} {reason}" for reason, number in self.dropped.items())
        recall = ", ".join(f"@{k} {share:.3f}" for k, share in self.gold_recall.items())
        return (
            f"{self.n_used} prompts of {self.n_documents} documents"
            f"{f' ({why})' if why else ''}; gold recall {recall}; "
            f"{self.n_made_up} of {2 * self.n_used} counterfactual sentences made up"
        )


def make_shortlisted(
    corpus: LabelledCorpus,
    split: str,
    template: Template,
    tokenizer: Any,
    *,
    n_prompts: int,
    seed: int,
    task: str | None = None,
    config: ShortlistConfig = DEFAULT_SIZES,
    retriever: LabelRetriever | None = None,
) -> tuple[PromptSet, ShortlistReport]:
    """Prompts from documents of a split in random order, one decision event each.

    Fewer than asked where the split has no more. Prompt i is the same whatever `n_prompts`.

    Args:
        corpus: labelled documents; sentences for counterfactuals come from all its splits.
        split: where the prompts' own documents come from.
        template: how a prompt reads.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        n_prompts: how many prompts.
        seed: of the order and of every choice.
        task: what the prompt set is called; the corpus' name by default.
        config: sizes.
        retriever: over `corpus.label_texts`; BM25 by default.

    Raises:
        InputError: no such split, no document gives a prompt, an option letter that is not one
            token, or a line of the corpus that is not as it should be.
    """
    if n_prompts < 1:
        raise InputError(f"n_prompts is {n_prompts}, must be at least 1")
    maker = _Maker(corpus, split, template, tokenizer, config, retriever)
    order = list(range(maker.n_own))
    random.Random(f"{seed}:shortlist").shuffle(order)
    events: dict[int, DecisionEvent] = {}
    dropped: Counter[str] = Counter()
    for number in order:
        if len(events) == n_prompts:
            break
        rng = random.Random(f"{seed}:shortlist:{number}")
        try:
            events[number] = maker.event(f"p{len(events)}", number, rng)
        except Dropped as reason:
            dropped[str(reason)] += 1
    tried = len(events) + sum(dropped.values())
    reasons = dict(sorted(dropped.items()))
    if not events:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it is empty"
        raise InputError(
            f"corpus {corpus.name!r}, split {split!r}: no document gives a prompt: {why}"
        )
    report = ShortlistReport(
        n_documents=tried,
        n_used=len(events),
        n_gold=maker.n_gold,
        n_found=dict(maker.n_found),
        n_made_up=maker.n_made_up,
        n_elsewhere=maker.n_elsewhere,
        dropped=reasons,
    )
    in_order = sorted(events) if config.as_given else list(events)
    made = tuple(events[number] for number in in_order)
    return PromptSet(task or corpus.name, made), report


class _Maker:
    """Makes the events of one corpus; counts gold labels and made-up sentences on the way."""

    def __init__(
        self,
        corpus: LabelledCorpus,
        split: str,
        template: Template,
        tokenizer: Any,
        config: ShortlistConfig,
        retriever: LabelRetriever | None,
    ) -> None:
        self.config, self.template, self.tokenizer = config, template, tokenizer
        self.name = corpus.name
        self.ids = corpus.label_ids
        self.texts = corpus.label_texts
        own = list(islice(corpus.documents(split), config.n_read))
        self.n_own = len(own)
        others = [other for other in corpus.splits if other != split]
        self._read = own + [
            document
            for other in others
            for document in islice(corpus.documents(other), config.n_read)
        ]
        self._known: dict[int, ToldDocument] = {}
        self._with_label: defaultdict[int, list[int]] = defaultdict(list)
        for number, document in enumerate(self._read):
            for label in document.labels:
                self._with_label[label].append(number)
        self._wordings = _wordings(corpus)
        self._finder = SupportFinder(self._wordings)
        self._retriever = retriever or LabelRetriever(self.texts)
        self._neighbours = nearest_labels(
            self.texts, config.n_neighbours, TfidfConfig(min_df=config.min_df)
        ).labels
        self._clusters = [corpus.cluster(label) for label in range(len(self.texts))]
        self._members: defaultdict[str, list[int]] = defaultdict(list)
        for label, cluster in enumerate(self._clusters):
            if cluster is not None:
                self._members[cluster].append(label)
        self.n_gold = self.n_made_up = self.n_elsewhere = 0
        self.n_found = dict.fromkeys(sorted({config.n_candidates, config.n_retrieved}), 0)

    def event(self, prompt_id: str, number: int, rng: random.Random) -> DecisionEvent:
        """One decision about one document.

        Raises:
            Dropped: with the reason.
        """
        if self.config.as_given:
            prompt_id = self._read[number].id
        plan = self._plan(prompt_id, number, rng)
        event = longest_event(plan, self.template, self.tokenizer, self.config.max_tokens)
        self.n_made_up += plan.n_made_up
        self.n_elsewhere += self._is_elsewhere(plan)
        if not self.config.as_given:
            return event
        try:
            check_meaning(event)
        except InputError as error:
            raise Dropped(f"whose prompt is refused ({error})") from None
        return self._with_families(event, plan)

    def _with_families(self, event: DecisionEvent, plan: Plan) -> DecisionEvent:
        """Options named by their clusters, where all have one."""
        family = {plan.labels[label].id: self._clusters[label] for label in plan.candidates}
        if None in family.values():
            return event
        options = tuple(replace(one, family=family[one.label]) for one in event.options)
        return replace(event, options=options, family=self._clusters[plan.gold])

    def _is_elsewhere(self, plan: Plan) -> bool:
        """Whether the document says the gold label, or its evidence, outside the evidence."""
        document, place = plan.document, plan.document.supports[plan.gold].sentence
        said = {*self._wordings[plan.gold], document.sentences[place]}
        around = [document.told(0, place), document.told(place + 1, len(document.sentences))]
        return any(find_words(text, words) for text in around for words in said)

    def _document(self, number: int) -> ToldDocument:
        if number not in self._known:
            document = self._read[number]
            self._known[number] = self._told(document)
        return self._known[number]

    def _told(self, document: Document) -> ToldDocument:
        """The document with the support that its source gives, or that is found."""
        text, given = document.full_text, document.evidence is not None
        spans = [(start, end) for _, start, end in document.evidence or ()]
        apart = list(dict.fromkeys(spans))
        cut = self._finder.cut(text, apart)
        if given:
            place = dict(zip(apart, cut.apart, strict=True))
            pairs = zip(document.evidence or (), spans, strict=True)
            supports = {one[0]: Support(place[span], 1.0) for one, span in reversed([*pairs])}
        else:
            labels = document.labels
            supports = self._finder.supports(cut.sentences, labels, self.config.min_overlap)
        told = (text, cut.sentences, cut.gaps, cut.begins, supports, given)
        return ToldDocument(document.labels, document.ignored, *told)

    def _plan(self, prompt_id: str, number: int, rng: random.Random) -> Plan:
        document = self._document(number)
        if not document.labels:
            raise Dropped("without labels")
        (found,) = self._retriever.top([document.query], self.config.n_retrieved).tolist()
        if document.given and not document.supports:
            raise Dropped("whose evidence is not in the text")
        as_given = self.config.as_given
        golds = [label for label in document.labels if as_given or label in found]
        self.n_gold += len(document.labels)
        for k in self.n_found:
            self.n_found[k] += sum(label in found[:k] for label in golds)
        if not golds:
            raise Dropped("with no gold label retrieved")
        mentioned = self._mentioned(document, golds, rng)
        gold = mentioned[0]
        taken = {*document.labels, *document.ignored}
        near = self._distinct(self._near(gold), taken, [gold], self.config.n_near)
        if not near:
            raise Dropped("without a near option")
        rest = [label for label in found if label >= 0]
        rest += rng.sample(range(len(self.texts)), min(len(self.texts), 200))
        others = [label for label in mentioned if label != gold]
        n_far = self.config.n_candidates - len(near) - len(mentioned)
        not_far = taken | set(self._near(gold))
        far = self._distinct(rest, not_far, [gold, *near, *others], n_far)
        if not far:
            raise Dropped("without a far option")
        candidates = [gold, *near, *far, *others]
        rng.shuffle(candidates)
        swaps = [self._swap(number, gold, options, rng) for options in (far, near)]
        in_order = tuple(sorted(mentioned, key=lambda label: document.supports[label].sentence))
        return Plan(
            id=prompt_id,
            document=document,
            mentioned=in_order,
            event=in_order.index(gold),
            near=tuple(near),
            far=tuple(far),
            candidates=tuple(candidates),
            labels={
                label: Label(self.ids[label], one_line(self.texts[label]), (self.name,))
                for label in candidates
            },
            swaps=(swaps[0][0], swaps[1][0]),
            n_made_up=sum(invented for _, invented in swaps),
        )

    def _mentioned(
        self, document: ToldDocument, golds: Sequence[int], rng: random.Random
    ) -> list[int]:
        """The label to decide about, at random, then those whose evidence is nearest to it.

        Of labels that one sentence supports, only the best supported can be mentioned: a swap of
        that sentence moves all of them.
        """
        best: dict[int, int] = {}
        for label in golds:
            support = document.supports.get(label)
            if support is None:
                continue
            rival = best.get(support.sentence)
            if rival is None or document.supports[rival].overlap < support.overlap:
                best[support.sentence] = label
        if not best:
            raise Dropped("with no sentence for a gold label")
        chosen = rng.choice(sorted(best))
        nearest = sorted(best, key=lambda sentence: (abs(sentence - chosen), sentence))
        return self._distinct([best[at] for at in nearest], set(), [], self.config.n_mentions)

    def _near(self, gold: int) -> list[int]:
        """Near misses, best first: of the label's cluster, or its nearest labels without one."""
        nearest = [label for label in self._neighbours[gold].tolist() if label >= 0]
        cluster = self._clusters[gold]
        members = [] if cluster is None else self._members[cluster]
        if len(members) < 2 and not (self.config.as_given and members):
            return nearest
        inside = set(members)
        ranked = [label for label in nearest if label in inside]
        return ranked + sorted(inside.difference(ranked, [gold]))

    def _distinct(
        self, labels: Sequence[int], barred: set[int], before: Sequence[int], most: int
    ) -> list[int]:
        """The first labels that may be offered: not barred, and no text twice."""
        texts = {comparable(one_line(self.texts[label])) for label in before}
        chosen: list[int] = []
        for label in labels:
            text = comparable(one_line(self.texts[label]))
            if len(chosen) < most and label not in barred and text and text not in texts:
                chosen.append(label)
                texts.add(text)
        return chosen

    def _swap(
        self, number: int, gold: int, options: Sequence[int], rng: random.Random
    ) -> tuple[str, bool]:
        """A sentence for one of the options in place of the gold label's; whether it is made up."""
        document = self._document(number)
        original = document.sentences[document.supports[gold].sentence]
        found: list[str] = []
        for option in options:
            strangers = self._with_label.get(option, [])
            for other in rng.sample(strangers, min(len(strangers), _MOST_STRANGERS)):
                stranger = self._document(other)
                support = stranger.supports.get(option)
                alike = document.given == stranger.given
                if other == number or not alike or support is None or gold in stranger.labels:
                    continue
                sentence = stranger.sentences[support.sentence]
                if self._finder.overlap(sentence, gold) < support.overlap:
                    found.append(sentence)
        found = [sentence for sentence in dict.fromkeys(found) if sentence != original]
        if not found:
            option = rng.choice(options)
            if document.given:
                return one_line(rng.choice(self._wordings[option])), True
            return made_up(original, self.texts[gold], self.texts[option]), True
        rows = self.tokenizer(
            [f" {text}" for text in (original, *found)],
            add_special_tokens=False,
            split_special_tokens=True,
        )
        wanted, *lengths = (len(row) for row in rows["input_ids"])
        least = min(abs(length - wanted) for length in lengths)
        pairs = zip(found, lengths, strict=True)
        return rng.choice([text for text, n in pairs if abs(n - wanted) == least]), False


def _wordings(corpus: LabelledCorpus) -> list[tuple[str, ...]]:
    """Text and, where the corpus has a space with them, synonyms of every label."""
    space = getattr(corpus, "space", None)
    pairs = zip(corpus.label_ids, corpus.label_texts, strict=True)
    if not isinstance(space, LabelSpace):
        return [(text,) for _, text in pairs]
    return [(text, *space[label].synonyms) for label, text in pairs]
