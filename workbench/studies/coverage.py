"""How often do the intervals of effects hold the true value? By simulation.

A sample is a number of prompts that have a valid pair, with one to three decision events each.
Margins of an event are normal, those of one prompt alike (correlation 0.6); a head restores a share
of the lost margin that varies over prompts and events on the logistic scale. Probabilities are the
logistic function of margins, and valid pairs are chosen on them, so most effects are skewed: a weak
head moves the probability of few events, a strong one of all but a few.

The true value is that of 400,000 prompts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.patching.effects import difference_of_ratios
from workbench.analysis.patching.patching import THRESHOLDS
from workbench.analysis.statistics import bootstrap, ratio_of_means
from workbench.errors import InputError
from workbench.phases import MIN_PROMPTS

SIZES = (15, 20, 40, 80)
HEADS: dict[str, tuple[float, float]] = {
    "weak": (0.1, 1.0),
    "of few prompts": (0.05, 2.0),
    "middling": (0.4, 1.0),
    "strong": (0.8, 1.0),
}
"""Share of the lost margin that a head restores in the median event, and how much that varies."""
OTHER = (0.3, 1.0)
"""The head that each is compared with on the same events."""
MOST_EVENTS = 3
ALIKE = 0.6
N_TRUE = 400_000
COLUMNS = ["effect", "head", "n_prompts", "interval", "true", "coverage", "above", "below", "width"]


class Terms(NamedTuple):
    """Numerators and denominators of effects; all 0 where an event is no valid pair."""

    moved: Float[Tensor, "event sample"]
    moved_other: Float[Tensor, "event sample"]
    lost: Float[Tensor, "event sample"]
    margin_moved: Float[Tensor, "event sample"]
    margin_lost: Float[Tensor, "event sample"]


EFFECTS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "share of probability": (ratio_of_means, ("moved", "lost")),
    "share of margin": (ratio_of_means, ("margin_moved", "margin_lost")),
    "difference of two heads": (difference_of_ratios, ("moved", "lost", "moved_other", "lost")),
}
"""Name of an effect → its statistic, and the terms that it is of."""


def coverage_table(
    n_samples: int = 2000,
    sizes: Sequence[int] = SIZES,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Share of samples whose 95 % interval holds the true value, studentised and by percentiles.

    Columns: effect, head (see `HEADS`), n_prompts (with a valid pair), interval, true, coverage,
    above and below (shares of samples whose interval lies there), width (median).

    Raises:
        InputError: no sample, or a size below `MIN_PROMPTS`.
    """
    if n_samples < 1 or not sizes or min(sizes) < MIN_PROMPTS:
        raise InputError(
            f"{n_samples} samples of sizes {list(sizes)}: there must be a sample, and sizes from "
            f"{MIN_PROMPTS} prompts, below which there are no intervals"
        )
    rows, done = [], 0
    for head, (share, spread) in HEADS.items():
        many = draw_terms(N_TRUE, 1, share, spread, derive_generator(seed, head, "true"))
        for size in sizes:
            generator = derive_generator(seed, head, size)
            terms = draw_terms(size, n_samples, share, spread, generator)
            for effect, (statistic, names) in EFFECTS.items():
                true = float(statistic(*(getattr(many, name).sum() for name in names)))
                for kind, studentised in (("studentised", True), ("percentile", False)):
                    _, low, high = bootstrap(
                        statistic,
                        *(getattr(terms, name) for name in names),
                        prompt_ids=[str(at) for at in range(size) for _ in range(MOST_EVENTS)],
                        n_resamples=n_resamples,
                        seed=seed,
                        studentised=studentised,
                    )
                    above, below = ((low > true).double().mean(), (high < true).double().mean())
                    held = float(1 - above - below)
                    ends = (float(above), float(below), float((high - low).median()))
                    rows.append((effect, head, size, kind, true, held, *ends))
            done += 1
            if progress is not None:
                progress(done, len(HEADS) * len(sizes))
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(
        ["interval", "effect"], ascending=[False, True], kind="stable", ignore_index=True
    )


def draw_terms(
    n_prompts: int, n_samples: int, share: float, spread: float, generator: torch.Generator
) -> Terms:
    """Samples of so many prompts with a valid pair; one without is drawn again."""
    terms, valid = _draw(n_prompts, n_samples, share, spread, generator)
    while not valid.any(dim=1).all():
        again, now_valid = _draw(n_prompts, n_samples, share, spread, generator)
        wanted = ~valid.any(dim=1, keepdim=True)
        terms = [new.where(wanted, old) for new, old in zip(again, terms, strict=True)]
        valid = now_valid.where(wanted, valid)
    return Terms(*(one.reshape(-1, n_samples) for one in terms))


def _draw(
    n_prompts: int, n_samples: int, share: float, spread: float, generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    shape = (n_prompts, MOST_EVENTS, n_samples)

    def normal() -> Tensor:
        """Of standard deviation 1, events of one prompt alike."""
        ours = torch.randn(n_prompts, 1, n_samples, generator=generator, dtype=torch.float64)
        own = torch.randn(shape, generator=generator, dtype=torch.float64)
        return ALIKE**0.5 * ours + (1 - ALIKE) ** 0.5 * own

    clean, far = 3.5 + 2 * normal(), -3.5 + 2 * normal()
    patched = []
    for median, width in ((share, spread), OTHER):
        restored = (np.log(median / (1 - median)) + width * normal()).sigmoid()
        patched.append(far + restored * (clean - far))
    there = torch.rand(shape, generator=generator) < ALIKE
    there[:, 0] = True
    lost = clean.sigmoid() - far.sigmoid()
    valid = there & (clean.sigmoid() >= THRESHOLDS["clean_focus"]) & (lost >= THRESHOLDS["moved"])
    moved = [one.sigmoid() - far.sigmoid() for one in patched]
    terms = [*moved, lost, patched[0] - far, clean - far]
    return [one.where(valid, 0.0) for one in terms], valid
