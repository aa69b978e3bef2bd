"""One block: its documents with their candidates to the model, and its scores as a table."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import InputError
from workbench.labels.corpus import Document
from workbench.predicting.blocks import Block
from workbench.predicting.config import PredictionConfig
from workbench.predicting.generating import Generator
from workbench.predicting.model import PlainModel
from workbench.predicting.scoring import OptionScorer
from workbench.prompts.forms.asking import Asker, Question
from workbench.prompts.templates import CharSpan

COLUMNS = ["document", "labels", "scores", "gold", "retrieved"]
COUNTS = ["candidates", "narrowed", "cut", "tokens"]
REASONED = ["listed", "finished", "chain"]
MARGIN = 16
"""Tokens by which a chain may be longer when it is read as text again."""


class Reranker:
    """Orders retrieved labels by how probable a model holds them as the answer.

    Args:
        model: answers.
        asker: writes the questions.
        texts: of all labels.
        config: how many candidates, in which order, and whether the model reasons.
        scorer: of options.
        generator: writes chains; needed where the model reasons.
    """

    def __init__(
        self,
        model: PlainModel,
        asker: Asker,
        texts: Sequence[str],
        config: PredictionConfig,
        scorer: OptionScorer,
        generator: Generator | None = None,
    ) -> None:
        self._model, self._asker, self._texts = model, asker, texts
        self._config, self._scorer, self._generator = config, scorer, generator

    def table(self, block: Block, advance: Callable[[int], None] | None = None) -> pd.DataFrame:
        """A row for each document of a block, with `COLUMNS` and `COUNTS`.

        `labels` are the candidates, the most probable first, then the rest of `retrieved` in its
        order; `scores` are log-probabilities of the candidates, and of the rest one less with every
        place, beginning below the last candidate. A document without a candidate has no row of
        labels. `narrowed` says whether it has fewer candidates since its options are too long,
        `cut` whether a part of it was not shown, `tokens` how long its question is.
        Where the model reasons, `REASONED` are there as well: `listed`, the labels that its reply
        names; `finished`, whether it came to one; `chain`, all that it wrote, where kept.

        Args:
            block: documents with what was retrieved for them.
            advance: called with how many documents more are done.

        Raises:
            InputError: a document that does not fit with one option, or what model and generator
                refuse.
        """
        config = self._config
        retrieved = [
            kept(document, found)
            for document, found in zip(block.documents, block.retrieved, strict=True)
        ]
        shown, found_questions = self._questions(block.documents, retrieved)
        asked, questions = list(found_questions), list(found_questions.values())
        texts = [block.documents[row].full_text for row in asked]
        options = [[self._texts[label] for label in shown[row]] for row in asked]
        if advance and len(asked) < len(shown):
            advance(len(shown) - len(asked))
        replies = self._replies(questions) if config.reason else []
        decided = questions
        if config.reason:
            pairs = zip(questions, replies, strict=True)
            decided = [self._reasoned(question, reply) for question, reply in pairs]
        found = dict(zip(asked, self._scorer.log_probs(decided, advance), strict=True))
        rows = [
            ranked(some, shown[row], found.get(row, np.empty(0)))
            for row, some in enumerate(retrieved)
        ]
        cut = {
            row: is_cut(text, question.shown)
            for row, text, question in zip(asked, texts, questions, strict=True)
        }
        tokens = {row: len(question.tokens) for row, question in zip(asked, decided, strict=True)}
        table = pd.DataFrame(
            {
                "document": [document.id for document in block.documents],
                "labels": [labels for labels, _ in rows],
                "scores": [scores for _, scores in rows],
                "gold": [np.array(one.labels, dtype=np.int32) for one in block.documents],
                "retrieved": [np.array(some, dtype=np.int32) for some in retrieved],
                "candidates": np.array([len(some) for some in shown], dtype=np.int32),
                "narrowed": [
                    len(some) < min(config.candidates, len(all_of_them))
                    for some, all_of_them in zip(shown, retrieved, strict=True)
                ],
                "cut": [cut.get(row, False) for row in range(len(shown))],
                "tokens": np.array([tokens.get(row, 0) for row in range(len(shown))], np.int32),
            }
        )
        return table.assign(**self._columns(shown, asked, options, replies))

    def _questions(
        self, documents: Sequence[Document], retrieved: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], dict[int, Question]]:
        """The candidates of each document, and the questions, by its row, of those that have any.

        Where the options of a document are so long that nothing of it could be shown beside them,
        there are fewer.
        """
        config = self._config
        room = config.room + MARGIN if config.reason else 0
        pairs = list(zip(documents, retrieved, strict=True))
        shown = [in_order(some[: config.candidates], one.id, config) for one, some in pairs]
        asked = [row for row, some in enumerate(shown) if some]
        if not asked:
            return shown, {}
        texts = [documents[row].full_text for row in asked]
        try:
            options = [[self._texts[label] for label in shown[row]] for row in asked]
            return shown, dict(
                zip(asked, self._asker.ask_many(texts, options, room=room), strict=True)
            )
        except InputError:  # of one document, which is not known
            questions = {}
        for row, text in zip(asked, texts, strict=True):
            while row not in questions:
                try:
                    options = [self._texts[label] for label in shown[row]]
                    questions[row] = self._asker.ask(text, options, room=room)
                except InputError:
                    fewer = len(shown[row]) * 3 // 4
                    if not fewer:
                        raise
                    shown[row] = in_order(retrieved[row][:fewer], documents[row].id, config)
        return shown, questions

    def _replies(self, questions: Sequence[Question]) -> list[list[int]]:
        if self._generator is None:
            raise InputError("a model that reasons needs a generator")
        prompts = [self._asker.opened(question) for question in questions]
        return self._generator.write(prompts, self._config.room)

    def _reasoned(self, question: Question, reply: Sequence[int]) -> Question:
        """At the decision after a chain; its end goes where it is longer as text than it was."""
        while True:
            try:
                return self._asker.reasoned(question, self._text(reply))
            except InputError:
                if not reply:
                    raise
                reply = reply[: len(reply) * 3 // 4]

    def _text(self, reply: Sequence[int]) -> str:
        return str(self._model.tokenizer.decode(list(reply)))

    def _columns(
        self,
        shown: Sequence[Sequence[int]],
        asked: Sequence[int],
        options: Sequence[Sequence[str]],
        replies: Sequence[Sequence[int]],
    ) -> dict[str, list[object]]:
        """`REASONED`, where the model reasons."""
        cues = self._asker.cues
        if not self._config.reason or cues is None:
            return {}
        none = np.empty(0, dtype=np.int32)
        columns: dict[str, list[object]] = {
            "listed": [none for _ in shown],
            "finished": [False for _ in shown],
            "chain": ["" for _ in shown],
        }
        for row, offered, reply in zip(asked, options, replies, strict=True):
            text = self._text(reply)
            columns["chain"][row] = text
            if cues.closing in text:  # otherwise it is a thought without an end
                named = self._asker.listed(text, offered)
                columns["finished"][row] = True
                columns["listed"][row] = np.array([shown[row][at] for at in named], dtype=np.int32)
        if not self._config.keep_chains:
            del columns["chain"]
        return columns


def kept(document: Document, found: Sequence[int] | np.ndarray) -> list[int]:
    """Retrieved labels without those that are not to be offered."""
    ignored = set(document.ignored)
    return [int(label) for label in found if int(label) not in ignored]


def in_order(labels: Sequence[int], document: str, config: PredictionConfig) -> list[int]:
    """The candidates of a document, as they are shown."""
    ordered = list(labels)
    if config.order == "shuffled":
        random.Random(f"{config.seed}:{document}:candidates").shuffle(ordered)
    return ordered


def ranked(
    retrieved: Sequence[int], shown: Sequence[int], log_probs: Float[np.ndarray, " candidate"]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels by score, and scores: of the candidates as the model has them, then of the rest.

    Among equals the one that was retrieved first comes first.
    """
    score = dict(zip(shown, log_probs.tolist(), strict=True))
    first = sorted(retrieved[: len(shown)], key=lambda label: -score[label])
    lowest = score[first[-1]] if first else 0.0
    below = [lowest - place for place in range(1, len(retrieved) - len(shown) + 1)]
    labels = np.array([*first, *retrieved[len(shown) :]], dtype=np.int32)
    scores = np.array([*(score[label] for label in first), *below], dtype=np.float32)
    return labels, scores


def is_cut(text: str, shown: Sequence[CharSpan]) -> bool:
    """Whether something of a document, besides spaces, is not shown."""
    ends = [0, *(end for _, end in shown)]
    starts = [*(start for start, _ in shown), len(text)]
    return any(text[end:start].strip() for end, start in zip(ends, starts, strict=True))
