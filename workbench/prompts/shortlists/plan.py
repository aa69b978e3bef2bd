"""What a prompt of a document is to hold, before it is written for a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from workbench.labels.space import Label
from workbench.prompts.sentences import Cut
from workbench.prompts.telling import Told


class Dropped(Exception):
    """A document that gives no prompt, with the reason."""


class StillTold(Dropped):
    """A counterfactual tells gold all the same."""


Edit = Mapping[int, str | None]
"""Sentences, by place, that a counterfactual replaces by others, or leaves out."""


@dataclass(frozen=True)
class ToldDocument:
    """A document that was read, its sentences, and which of them tell each gold label.

    `given` says whether the source says which, rather than that they were found.
    """

    labels: tuple[int, ...]
    ignored: tuple[int, ...]
    text: str = field(repr=False)
    cut: Cut = field(repr=False)
    told: Mapping[int, tuple[Told, ...]] = field(repr=False)
    given: bool = False

    def main(self, label: int) -> Told:
        """The sentence that tells a label best; of equal ones the shortest."""
        sentences = self.cut.sentences
        return max(self.told[label], key=lambda one: (one.overlap, -len(sentences[one.sentence])))

    def edited(self, edit: Edit) -> str:
        """All sentences on one line, edited."""
        return self.on_one_line(0, len(self.cut.sentences), edit)

    def on_one_line(self, start: int, stop: int, edit: Edit) -> str:
        """These sentences with their gaps, edited."""
        parts = []
        for at in range(start, stop):
            said = edit.get(at, self.cut.sentences[at])
            parts += [] if said is None else [self.cut.gaps[at], said]
        return "".join(parts)


@dataclass(frozen=True)
class Plan:
    """A prompt's content: which label is decided about, and what its counterfactuals say.

    Attributes:
        id: of the prompt.
        document: that is shown.
        gold: the label that is decided about, by position.
        others: further gold labels on offer, in the order of their sentences.
        evidence: the sentence that tells gold best, replaced in both counterfactuals.
        near, far: options.
        candidates: all options in the order shown.
        labels: of the options, by position.
        edits: of the far and of the near variant; both are of all sentences that tell gold.
        told_by: the option that each tells in gold's place.
    """

    id: str
    document: ToldDocument
    gold: int
    others: tuple[int, ...]
    evidence: int
    near: tuple[int, ...]
    far: tuple[int, ...]
    candidates: tuple[int, ...]
    labels: Mapping[int, Label]
    edits: tuple[Edit, Edit] = field(repr=False)
    told_by: tuple[int, int]
    n_own_words: int = 0

    @property
    def variants(self) -> tuple[Edit, Edit, Edit]:
        """What the clean, the far and the near variant change."""
        return ({}, *self.edits)

    @property
    def changed(self) -> tuple[int, ...]:
        """Places of the sentences that tell gold, in order."""
        return tuple(sorted(self.edits[0]))
