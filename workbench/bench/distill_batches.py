"""Made-up examples with every place that a term of the loss may look at, of a given length."""

import random
from typing import Any

from workbench.bench.distill_plan import Plan
from workbench.bench.shapes import SHAPES

DECISION_TOKENS = 4
"""From one decision of an answer to the next."""


def make_samples(plan: Plan, n: int) -> list[dict[str, Any]]:
    """Samples of random tokens: a note with evidence, options, a chain that names them, answers."""
    rng = random.Random(0)
    return [_sample(plan, rng) for _ in range(n)]


def _sample(plan: Plan, rng: random.Random) -> dict[str, Any]:
    vocabulary = SHAPES[plan.student][1]
    ids = [rng.randrange(vocabulary) for _ in range(plan.tokens - 1)]
    question, n_options = plan.question, plan.options
    width = plan.room // n_options
    first = question - plan.room
    spans = [[first + i * width, first + i * width + width - 1] for i in range(n_options)]
    answer = len(ids) - plan.decisions * DECISION_TOKENS - 1
    decisions = [answer + DECISION_TOKENS * i for i in range(plan.decisions)]
    gold = [rng.randrange(n_options) for _ in decisions]
    near = [(right + 1) % n_options for right in gold]
    evidence = [[start, start + 6] for start in (rng.randrange(first - 6) for _ in decisions)]
    chain = range(question, answer)
    half = chain[len(chain) // 2]
    early = list(range(question - 1, question + 29))
    late = list(range(half, half + 4 * len(decisions)))
    named = [[i, question + 8 * i, question + 8 * i + 4] for i in range(len(decisions))]
    missed = [[i, start + 4, stop + 4] for i, start, stop in named]
    return {
        "ids": ids,
        "weights": [float(at >= question) for at in range(len(ids))],
        "question": question,
        "option_spans": spans,
        "option_tokens": [ids[start] for start, _ in spans],
        "evidence": evidence,
        "decisions": decisions,
        "early": early,
        "early_decision": [-1] * len(early),
        "late": late,
        "late_decision": [i // 4 for i in range(len(late))],
        "late_option": [-1] * len(late),
        "shortlist": named,
        "near": missed,
        "gold": gold,
        "near_options": [[i, other] for i, other in enumerate(near)],
    }
