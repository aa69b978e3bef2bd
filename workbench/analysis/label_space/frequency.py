"""How often labels occur in training: propensities of missing labels, and buckets of frequency.

The propensity p of a label that N_l of N training documents have is (Jain, Prabhu & Varma 2016)

    p = 1 / (1 + C (N_l + B)^-A),    C = (ln N − 1) (B + 1)^A
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.progress import pulse

PerLabel = Float[np.ndarray, " label"]

WIKIPEDIA, AMAZON, OTHER = (0.5, 0.4), (0.6, 2.6), (0.55, 1.5)
"""A and B that results are published with: on Wikipedia's categories, on what is bought together,
and on all else, which Wiki10, AmazonCat and WikiSeeAlso are too."""

HEAD, TORSO, TAIL = BUCKETS = ("head", "torso", "tail")
SEEN, UNSEEN = "seen", "unseen"
"""Labels that some training document has, and none."""


def training_counts(corpus: LabelledCorpus) -> tuple[Int[np.ndarray, " label"], int]:
    """Training documents of every label, and all training documents; zeros without such a split.

    Raises:
        InputError: the documents cannot be read.
    """
    counts: Counter[int] = Counter()
    n_train = 0
    if "train" in corpus.splits:
        for document in corpus.documents("train"):
            counts.update(document.labels)
            n_train += 1
            pulse("training documents")
    per_label = np.zeros(len(corpus.label_texts), dtype=np.int64)
    per_label[list(counts)] = list(counts.values())
    return per_label, n_train


def inverse_propensities(
    train_counts: Sequence[int] | Int[np.ndarray, " label"],
    n_train: int,
    propensity: tuple[float, float] = OTHER,
) -> PerLabel:
    """1 / p of every label, from its number of training documents and `propensity` (A, B).

    Raises:
        InputError: fewer than 3 training documents, for which the formula is not meant, a label
            with more of them than there are or fewer than 0, or A or B not positive.
    """
    counts, (a, b) = _counts(train_counts), propensity
    if n_train < 3 or (len(counts) and counts.max() > n_train):
        raise InputError(
            f"n_train is {n_train}, must be at least 3 and no less than any label's training count"
        )
    if not (a > 0 and b > 0):
        raise InputError(f"propensity is ({a}, {b}), both must be above 0")
    return 1 + (np.log(n_train) - 1) * ((b + 1) / (counts + b)) ** a


def label_buckets(
    train_counts: Sequence[int] | Int[np.ndarray, " label"], *, head: int = 100, tail: int = 5
) -> np.ndarray:
    """ "head", "torso" or "tail" for every label, by its number of training documents.

    Args:
        train_counts: training documents of each label.
        head: head labels have at least so many.
        tail: tail labels have at most so many, those with none included; 5 is where labels begin to
            be called few-shot in Rios & Kavuluru (2018).

    Raises:
        InputError: `head` not above `tail`, or a count below 0.
    """
    if head <= tail:
        raise InputError(f"head is {head} and tail {tail}; head must be above tail")
    counts = _counts(train_counts)
    return np.select([counts >= head, counts <= tail], [HEAD, TAIL], TORSO)


def _counts(train_counts: Sequence[int] | np.ndarray) -> np.ndarray:
    counts = np.asarray(train_counts)
    if len(counts) and counts.min() < 0:
        raise InputError(f"label {int(counts.argmin())}: its training count is below 0")
    return counts
