"""Made-up titles and sentences with a Zipf vocabulary, a million of them in seconds."""

from collections.abc import Sequence

import numpy as np

_WORDS = (
    "north river national church old music air station lake battle saint house war new royal "
    "school south art railway county film east league bridge language island king party mount "
    "state road university park city west court castle market queen law press club mill valley "
    "theatre army museum port stone bay festival union abbey forest iron treaty harbour college "
    "order red tower"
)
_SYLLABLES = (
    "ba bel bri ca cor da del dor el fa fen gal gra ha hol il ka kir la len lo mar mel mi mon "
    "na nor o pel ra ri ros sa sel shi sta ta tel tha tor u val ver wen wil ya yor zan zel"
)
_PATTERNS = {
    "{}": 1.0,
    "History of {}": 0.55,
    "List of {}": 0.45,
    "{} (film)": 0.35,
    "Geography of {}": 0.3,
    "{} (album)": 0.3,
    "Timeline of {}": 0.25,
    "Economy of {}": 0.2,
    "{} national team": 0.15,
    "Culture of {}": 0.15,
    "Outline of {}": 0.1,
    "{} (disambiguation)": 0.1,
}
"""Patterns of titles, and the probability that an entity has a title of that pattern."""

_ENTITY_WORDS = (0.45, 0.4, 0.15)  # of one, two and three words
SENTENCE_WORDS = 12


def zipf_titles(n: int, *, seed: int = 0) -> list[str]:
    """`n` distinct titles like those of encyclopedia articles: about three words, Zipf vocabulary.

    A million take seconds.
    """
    rng = np.random.default_rng(seed)
    chances = np.array(list(_PATTERNS.values()))
    words = _vocabulary(max(200, n // 4))
    entities = _entities(int(n / chances.sum() * 1.1) + 10, words, rng)
    has = rng.random((len(entities), len(chances))) < chances
    which, patterns = np.nonzero(has)
    chosen = rng.permutation(len(which))[:n]
    forms = list(_PATTERNS)
    return [
        forms[pattern].format(entities[entity])
        for entity, pattern in zip(which[chosen].tolist(), patterns[chosen].tolist(), strict=True)
    ]


def _vocabulary(size: int) -> list[str]:
    """Distinct capitalised words, known ones first: the rank is the word's place in Zipf's law."""
    words = [word.capitalize() for word in _WORDS.split()]
    alphabet = _SYLLABLES.split()
    base = len(alphabet)
    for number in range(base, base + size):  # two syllables at least, written in this base
        syllables = []
        while number:
            number, digit = divmod(number, base)
            syllables.append(alphabet[digit])
        words.append("".join(syllables).capitalize())
    return list(dict.fromkeys(words))


def zipf(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`n` ranks below `size`, rank r with a probability as 1 / (r + 1)."""
    cumulative = np.cumsum(1 / np.arange(1, size + 1))
    return np.searchsorted(cumulative, rng.random(n) * cumulative[-1])


def _entities(n: int, words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """`n` distinct entities of one to three words."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < n:
        lengths = rng.choice(len(_ENTITY_WORDS), size=n, p=_ENTITY_WORDS) + 1
        ranks = zipf(3 * n, len(words), rng).reshape(n, 3)
        rows = zip(ranks.tolist(), lengths.tolist(), strict=True)
        found.update(dict.fromkeys(tuple(row[:length]) for row, length in rows))
    return [" ".join(words[rank] for rank in ranks) for ranks in list(found)[:n]]


def sentences(n: int, rng: np.random.Generator) -> list[str]:
    """`n` sentences of `SENTENCE_WORDS` words."""
    words = [word.lower() for word in _vocabulary(20_000)]
    ranks = zipf(n * SENTENCE_WORDS, len(words), rng).reshape(n, -1)
    return [" ".join(words[rank] for rank in row).capitalize() + "." for row in ranks.tolist()]
