"""Leakage-adjusted simulability: do chains help to tell what a model will answer?

Hase, Zhang, Xie, Zhou and Bansal, "Leakage-Adjusted Simulatability: Can Models Generate Non-Trivial
Explanations of Their Behavior in Natural Language?", Findings of EMNLP 2020, arXiv 2010.04119.

A *simulator* (see `simulator`) predicts the output y of the model in question from the input x,
from the explanation e (the chain, without its answer), and from both. An example *leaks* if e
alone tells the simulator y. With ŷ the simulator's prediction and 1[·] whether it is y:

    LAS_1 = mean over the examples that leak       of 1[ŷ | x, e] − 1[ŷ | x]
    LAS_0 = mean over those that do not            of the same
    LAS   = (LAS_0 + LAS_1) / 2

So each group counts half, however many examples it has. Without an example in one of the groups
LAS is not defined.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.statistics import Interval, bootstrap
from workbench.distill.evaluation.config import SimulatorConfig
from workbench.distill.evaluation.simulated import read_simulated, split_by_id
from workbench.distill.evaluation.simulator import Simulator
from workbench.errors import InputError, require
from workbench.phases import MIN_PROMPTS
from workbench.progress import Reporter

SEEN = ("x", "e", "xe")
"""What the simulator is shown: the input, the chain, both."""
VALUES = ("las", "las_leaking", "las_other")
GROUPS = {"las": ("n_leaking", "n_other"), "las_leaking": ("n_leaking",), "las_other": ("n_other",)}
"""Whose examples each value rests on. The interval of a group of one example that is right both
times would have no width, that of a few may end beyond what a share can be."""
SUMMARY = [
    *(f"{name}{end}" for name in VALUES for end in ("", "_low", "_high")),
    *("n_leaking", "n_other", *SEEN),
]


@dataclass(frozen=True)
class Simulability:
    """What a simulator made of a model's answers.

    Attributes:
        cases: a row per test example: its columns but the texts, and whether the simulator was
            right from the input alone (x), from the chain alone (e: the example leaks), and from
            both (xe).
        summary: by kind of chain: the columns of `leakage_adjusted`, n (examples), and note, which
            says why LAS is missing or says little.
        simulator: what the simulator is and how it was trained.
    """

    cases: pd.DataFrame
    summary: pd.DataFrame
    simulator: Mapping[str, Any]


def simulability(
    rows: Any,
    test: Any = None,
    *,
    simulator: str | Path,
    config: SimulatorConfig | None = None,
    test_share: float = 0.2,
    n_resamples: int = 2000,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> Simulability:
    """Train a simulator of a model on some of its answers; LAS of its chains on others.

    Args:
        rows: a table, a list of mappings or a file of JSON lines with `input`, `chain` (without
            the answer) and `output`, one row a question; `id` of the prompt, where several rows
            are of one; `question`, a text that stands before the output where prompts ask for
            several things; `kind`, where there are several versions of each chain.
        test: the same, of other prompts; a share of the prompts of `rows` unless given.
        simulator: a causal language model to begin with, which is not changed on disk.
        config: how it is trained.
        test_share: of prompts, where `test` is not given.
        n_resamples: of prompts, behind every interval.
        device: an accelerator if there is one.
        reporter: where progress is told.

    Raises:
        InputError: rows that cannot be used, prompts in both tables, or a model that cannot be
            read.
    """
    config = config or SimulatorConfig()
    train = read_simulated(rows)
    if test is None:
        train, tested = split_by_id(train, test_share, config.seed)
    else:
        tested = read_simulated(test)
    both = set(train["id"]) & set(tested["id"])
    if both:
        raise InputError(
            f"{len(both)} prompts are in both tables, first {min(both)!r}; a simulator is tested "
            "on other prompts than it learnt from"
        )
    made = Simulator.load(simulator, config, device=device, reporter=reporter)
    made.train(train)
    cases = made.cases(tested)
    return Simulability(
        cases, summarise(cases, n_resamples=n_resamples, seed=config.seed), made.about
    )


def summarise(cases: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """LAS by kind of chain; a note says where it is not defined, or a group has few examples."""
    rows = []
    for kind, part in cases.groupby("kind", sort=False):
        try:
            found = leakage_adjusted(part, n_resamples=n_resamples, seed=seed)
            fewest = min(found["n_leaking"], found["n_other"])
            few = fewest < MIN_PROMPTS
            note = f"half of LAS is the mean of {fewest} examples: it says little" if few else ""
        except InputError as error:
            found, note = _counts(part), str(error)
        rows.append({"kind": kind, **found, "n": len(part), "note": note})
    return pd.DataFrame(rows).reindex(columns=["kind", *SUMMARY, "n", "note"])


def leakage_adjusted(
    cases: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """LAS of some examples, with 95 % intervals over prompts.

    Args:
        cases: a row per example, with columns id (of its prompt), and x, e and xe: whether the
            simulator was right from the input, the chain, and both.
        n_resamples: of prompts; those in which a group is empty are left out.
        seed: of the resamples.

    Returns:
        las, las_leaking, las_other (each group's own mean) with `_low` and `_high`, which are NaN
        where they rest on a group of fewer than `MIN_PROMPTS` examples; n_leaking, n_other
        (examples of each group); x, e, xe (the simulator's accuracies).

    Raises:
        InputError: columns missing, no row, or an empty group.
    """
    require(cases, "simulated cases", ["id", *SEEN])
    counts = _counts(cases)
    if not len(cases):
        raise InputError("no examples to simulate")
    if not (counts["n_leaking"] and counts["n_other"]):
        said = "every chain tells" if counts["n_leaking"] else "no chain tells"
        raise InputError(
            f"{said} the simulator its output ({len(cases)} examples), so one of the two groups is "
            "empty and LAS is not defined"
        )
    sums, ids = _by_prompt(cases)
    found: dict[str, Any] = {}
    for name in VALUES:
        interval = _interval(name, [sums], ids, n_resamples, seed)
        if any(counts[group] < MIN_PROMPTS for group in GROUPS[name]):
            interval = _without_ends(interval)
        found |= {
            f"{name}{end}": float(x) for end, x in zip(("", "_low", "_high"), interval, strict=True)
        }
    return found | counts


def las_difference(
    cases: pd.DataFrame, against: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """LAS of one model less that of another, on the prompts that both have; value, low, high.

    The ends are NaN where a group of either has fewer than `MIN_PROMPTS` examples.

    Raises:
        InputError: as `leakage_adjusted`, of either.
    """
    shared = set(cases["id"]) & set(against["id"])
    both = [part.loc[part["id"].isin(list(shared))] for part in (cases, against)]
    counts = [leakage_adjusted(part, n_resamples=1) for part in both]
    (one, ids), (other, _) = map(_by_prompt, both)
    found = _interval("las", [one, other], ids, n_resamples, seed)
    if any(each[group] < MIN_PROMPTS for each in counts for group in GROUPS["las"]):
        found = _without_ends(found)
    return {end: float(x) for end, x in zip(("value", "low", "high"), found, strict=True)}


def _without_ends(found: Interval) -> Interval:
    none = torch.full_like(found[0], torch.nan)
    return Interval(found[0], none, none)


def _counts(cases: pd.DataFrame) -> dict[str, Any]:
    leaks = cases["e"].to_numpy(bool)
    accuracies = {name: float(np.mean(cases[name].to_numpy(float))) for name in SEEN if len(cases)}
    return {"n_leaking": int(leaks.sum()), "n_other": int((~leaks).sum()), **accuracies}


def _by_prompt(cases: pd.DataFrame) -> tuple[Float[Tensor, "prompt 1 4"], list[str]]:
    """Sums over each prompt: the gain and the number of its leaking examples, then of the others.

    Prompts in the order of their ids, so that those of two models go together.
    """
    leaks = cases["e"].to_numpy(float)
    gain = cases["xe"].to_numpy(float) - cases["x"].to_numpy(float)
    terms = np.stack([leaks * gain, leaks, (1 - leaks) * gain, 1 - leaks], axis=1)
    ids, prompts = np.unique(cases["id"].astype(str).to_numpy(), return_inverse=True)
    sums = np.zeros((len(ids), terms.shape[1]))
    np.add.at(sums, prompts, terms)
    return torch.from_numpy(sums)[:, None], [str(name) for name in ids]


def _interval(
    name: str, sums: Sequence[Tensor], ids: Sequence[str], n_resamples: int, seed: int
) -> Interval:
    def value(means: Float[Tensor, "resample 1 4"]) -> Float[Tensor, "resample 1"]:
        leaking, other = means[..., 0] / means[..., 1], means[..., 2] / means[..., 3]
        return {"las": (leaking + other) / 2, "las_leaking": leaking, "las_other": other}[name]

    def statistic(mine: Tensor, *other: Tensor) -> Tensor:
        return value(mine) - value(other[0]) if other else value(mine)

    return bootstrap(
        statistic,
        *sums,
        prompt_ids=ids,
        n_resamples=n_resamples,
        seed=seed,
        labels=["simulability"],
    )
