"""The task of planted models: `<start> filler… evidence option … option <decide>`.

The evidence names one label; nine options, three of each of three clusters, are on offer. It lies
before the aligned suffix, so some head must carry it to the decision.
"""

import torch

from workbench.prompts.prompt import DecisionEvent, Option, Role

N_CLUSTERS, CLUSTER_SIZE = 4, 4
N_LABELS = N_CLUSTERS * CLUSTER_SIZE
OFFERED_CLUSTERS, OFFERED_SIZE = 3, 3

START, DECIDE, FILLERS = 0, 1, range(2, 10)
EVIDENCE = range(10, 10 + N_LABELS)
OPTION = range(10 + N_LABELS, 10 + 2 * N_LABELS)
D_VOCAB = 10 + 2 * N_LABELS
"""Tokens: start, decide, fillers, one evidence and one option token for each label."""


def draw_event(generator: torch.Generator, index: int) -> DecisionEvent:
    """Nine options in random order; far evidence names an option of another cluster, near evidence
    another of the same; up to two fillers before the evidence."""

    def draw(count: int, of: int) -> list[int]:
        return torch.randperm(of, generator=generator)[:count].tolist()

    offered = [
        [cluster * CLUSTER_SIZE + item for item in draw(OFFERED_SIZE, CLUSTER_SIZE)]
        for cluster in draw(OFFERED_CLUSTERS, N_CLUSTERS)
    ]
    (gold, near, *_), (far, *_), *_ = offered
    labels = [label for cluster in offered for label in cluster]
    order = [labels[at] for at in draw(len(labels), len(labels))]
    fillers = [FILLERS[at] for at in draw(draw(1, 3)[0], len(FILLERS))]
    suffix = [*(OPTION[label] for label in order), DECIDE]
    start = len(fillers) + 1

    def role(label: int) -> Role:
        if label == gold:
            return "gold"
        return "near" if label in offered[0] else "far"

    def variant(label: int) -> tuple[int, ...]:
        return (START, *fillers, EVIDENCE[label], *suffix)

    return DecisionEvent(
        id=f"p{index}",
        event=0,
        clean=variant(gold),
        far=variant(far),
        near=variant(near),
        aligned_suffix=len(suffix),
        evidence=(start, start + 1),
        options=tuple(
            Option(
                f"label {label}",
                OPTION[label],
                role(label),
                (start + at, start + at + 1),
                family=f"cluster {label // CLUSTER_SIZE}",
            )
            for at, label in enumerate(order, start=1)
        ),
    )
