"""Decision events of label text that is written freely: where the labels of an index part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy.special import expit

from workbench.errors import InputError
from workbench.labels.index import CHILD_ROLES, LabelIndex, Node, Numbers


@dataclass(frozen=True)
class LabelEvents:
    """The decisions met while a prompt is continued with one label: where labels part.

    Event `i` has the options `tokens[offsets[i] : offsets[i + 1]]`, and their role codes (see
    `CHILD_ROLES`) at the same places of `roles`; exactly one is gold.

    Attributes:
        sequence: the prompt and the label, without its end token.
        positions: decision tokens in `sequence`; the next token is the choice.
        offsets, tokens, roles: the options of all events.
    """

    sequence: Integer[np.ndarray, " position"]
    positions: Integer[np.ndarray, " event"]
    offsets: Integer[np.ndarray, " edge"]
    tokens: Integer[np.ndarray, " option"]
    roles: Integer[np.ndarray, " option"]

    def __len__(self) -> int:
        return len(self.positions)

    def focus_confusion(
        self, logits: Float[np.ndarray, "event d_vocab"]
    ) -> tuple[Float[np.ndarray, " event"], Float[np.ndarray, " event"]]:
        """Focus and Confusion of every event, from the logits at its decision token.

        Without near tokens Confusion is 0; without far ones Focus is 1.
        """
        event = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        chosen = logits[event, self.tokens].astype(np.float64)
        largest = np.full((len(self), len(CHILD_ROLES)), -np.inf)
        np.maximum.at(largest, (event, self.roles), chosen)
        sums = np.zeros_like(largest)
        np.add.at(sums, (event, self.roles), np.exp(chosen - largest[event, self.roles]))
        with np.errstate(divide="ignore"):
            gold, near, far, _ = (np.log(sums) + np.where(sums > 0, largest, 0)).T
        # The logistic of a margin stays finite when the whole right cluster has probability 0.
        return expit(np.logaddexp(gold, near) - far), expit(near - gold)


def label_events(
    index: LabelIndex,
    prompt_ids: Sequence[int],
    gold_label: int,
    gold_set: Numbers,
    near_sets: Mapping[int, Numbers] | Integer[np.ndarray, "label k"],
) -> LabelEvents:
    """One event for each token of a label's text where more than one next token exists.

    Args:
        index: all labels.
        prompt_ids: tokens before the label.
        gold_label: number of the label that is written.
        gold_set: numbers of all gold labels of this document; those that part from `gold_label`
            give their tokens role `other`, which the softmax leaves out.
        near_sets: near misses by label number: a mapping, or a table as `nearest_labels` gives it,
            padded with -1.

    Raises:
        InputError: an empty prompt, or a label number that is not in the index.
    """
    if not len(prompt_ids):
        raise InputError("a label needs a prompt before it: its first token is decided there")
    path = index.label_tokens(gold_label)
    near = np.asarray(near_sets[gold_label], dtype=np.int64)
    near = near[near >= 0]
    positions, tokens, roles = [], [np.zeros(0, path.dtype)], [np.zeros(0, np.int8)]
    node = index.root
    for depth, token in enumerate(path):
        children = index.children(node)
        if len(children.tokens) > 1:
            positions.append(len(prompt_ids) - 1 + depth)
            tokens.append(children.tokens)
            roles.append(index.roles(node, [gold_label], near, gold_set))
        at = int(children.tokens.searchsorted(token))
        node = Node(int(children.bounds[at]), int(children.bounds[at + 1]), depth + 1)
    return LabelEvents(
        sequence=np.array([*prompt_ids, *path[:-1].tolist()]),
        positions=np.array(positions, dtype=np.int64),
        offsets=np.cumsum([0, *(len(part) for part in tokens[1:])]),
        tokens=np.concatenate(tokens),
        roles=np.concatenate(roles),
    )
