"""Sentences of other documents, which tell another label in a counterfactual."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from workbench.labels.corpus import Document
from workbench.labels.words import words
from workbench.prompts.shortlists.plan import Edit, ToldDocument
from workbench.prompts.telling import Teller

_MOST = 8
"""Other documents in which sentences for one option are looked for."""
_WORDS = (2, 60)
"""Of a sentence that may stand in another's place."""


class Strangers:
    """Sentences that tell labels, from the documents that have them.

    Args:
        read: all documents.
        told: the document of a number, with what tells its labels.
        teller: finds what tells labels.
        tokenizer: the model's, by which lengths are compared.
        seed: of which documents are looked at.
    """

    def __init__(
        self,
        read: Sequence[Document],
        told: Callable[[int], ToldDocument],
        teller: Teller,
        tokenizer: Any,
        seed: int,
    ) -> None:
        self._seed = seed
        self._told, self._teller, self._tokenizer = told, teller, tokenizer
        self._with_label: defaultdict[int, list[int]] = defaultdict(list)
        for number, document in enumerate(read):
            for label in document.labels:
                self._with_label[label].append(number)

    def sentences(self, number: int, gold: int, option: int) -> list[str]:
        """Sentences of other documents that tell an option, and do not tell gold, each once."""
        document = self._told(number)
        there = self._with_label.get(option, [])
        rng = random.Random(f"{self._seed}:strangers:{number}:{option}")
        found: dict[str, None] = {}
        for other in rng.sample(there, min(len(there), _MOST)):
            stranger = self._told(other)
            if other == number or document.given != stranger.given or gold in stranger.labels:
                continue
            for told in stranger.told.get(option, ()):
                sentence = stranger.cut.sentences[told.sentence]
                if _WORDS[0] <= len(words(sentence)) <= _WORDS[1] or document.given:
                    found[sentence] = None
        own = set(document.cut.sentences)
        strange = [one for one in found if one not in own]
        telling = {told.sentence for told in self._teller.told(strange, gold, [option])}
        return [one for at, one in enumerate(strange) if at not in telling]

    def edit(
        self, number: int, gold: int, evidence: int, options: Sequence[int], rng: random.Random
    ) -> tuple[int, Edit] | None:
        """The option told instead of gold, and what stands in place of the sentences that tell it.

        Of the options that other documents tell, one that can replace most of the sentences.
        Where it has fewer, those that tell gold best are replaced, the evidence first, and the
        others left out. None where no option has a sentence.
        """
        document = self._told(number)
        order = sorted(
            document.told[gold], key=lambda told: (told.sentence != evidence, -told.overlap)
        )
        places = [told.sentence for told in order]
        best: tuple[int, list[str]] | None = None
        for option in rng.sample(options, len(options)):
            found = self.sentences(number, gold, option)
            if found and (best is None or len(found) > len(best[1])):
                best = option, found
            if best is not None and len(best[1]) >= len(places):
                break
        if best is None:
            return None
        option, left = best
        edit: dict[int, str | None] = {}
        for place in places:
            edit[place] = self._alike(document.cut.sentences[place], left, rng) if left else None
            left = [one for one in left if one != edit[place]]
        return option, edit

    def _alike(self, original: str, found: Sequence[str], rng: random.Random) -> str:
        """One of the sentences that have most nearly as many tokens."""
        rows = self._tokenizer(
            [f" {text}" for text in (original, *found)],
            add_special_tokens=False,
            split_special_tokens=True,
        )
        wanted, *lengths = (len(row) for row in rows["input_ids"])
        least = min(abs(length - wanted) for length in lengths)
        pairs = zip(found, lengths, strict=True)
        return rng.choice([text for text, n in pairs if abs(n - wanted) == least])
