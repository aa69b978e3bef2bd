"""Prompts as a task draws them, before any template: mentions, and candidates in families."""

import string
from dataclasses import dataclass, replace

from workbench.errors import InputError
from workbench.prompts.prompt import Role


@dataclass(frozen=True)
class Mention:
    """A label as the note words it."""

    label: str
    text: str


@dataclass(frozen=True)
class DrawnPrompt:
    """A note and its candidates; one decision for each mention, in order.

    `families` partition the candidates: near misses are of one family. `candidates` are their
    members in the order shown. `asked` is the mention that is decided about, for templates that ask
    about one at a time.
    """

    id: str
    mentions: tuple[Mention, ...]
    families: tuple[tuple[str, ...], ...]
    candidates: tuple[str, ...]
    asked: int | None = None

    @property
    def golds(self) -> list[str]:
        """The right labels, one a decision."""
        return [mention.label for mention in self.mentions]

    @property
    def letters(self) -> dict[str, str]:
        """The letter that selects each candidate, in the order shown.

        Raises:
            InputError: more candidates than letters.
        """
        return dict(zip(self.candidates, option_letters(len(self.candidates)), strict=True))

    def family_of(self, label: str) -> tuple[str, ...]:
        """The family that holds this candidate."""
        return next(family for family in self.families if label in family)

    def role(self, event: int, label: str) -> Role:
        """Role of a candidate when this mention is decided about."""
        gold = self.mentions[event].label
        if label == gold:
            return "gold"
        if label in self.golds:
            return "other"
        return "near" if label in self.family_of(gold) else "far"

    def with_mention(self, event: int, mention: Mention) -> "DrawnPrompt":
        """The same prompt with one mention replaced."""
        mentions = (*self.mentions[:event], mention, *self.mentions[event + 1 :])
        return replace(self, mentions=mentions)


@dataclass(frozen=True)
class Counterfactuals:
    """The prompt of a decision event and its far and near variants."""

    event: int
    clean: DrawnPrompt
    far: DrawnPrompt
    near: DrawnPrompt


def option_letters(n_options: int) -> list[str]:
    """`A`, `B`, … for the candidates in the order shown.

    Raises:
        InputError: more options than letters.
    """
    if n_options > len(string.ascii_uppercase):
        raise InputError(f"{n_options} options, but only {len(string.ascii_uppercase)} letters")
    return list(string.ascii_uppercase[:n_options])
