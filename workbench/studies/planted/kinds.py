"""The kinds of planted models, each with the heads that the method should find, and as what.

Every kind has three decoys besides, which the method must leave out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import get_args

from workbench.errors import InputError
from workbench.studies.planted.parts import (
    ASKED_FOR_MLP,
    CARRIER,
    CARRYING_MATCH,
    CARRYING_READOUT,
    COARSE_READOUT,
    COLLECTOR,
    COPIER,
    FILTER,
    MATCH,
    MOVER,
    PRIOR,
    REFINE_READOUT,
    STRONG_READOUT,
    SUPPRESSOR,
    TWIN,
    Name,
    Part,
    asking,
    backup,
    for_cluster,
    saturated_readouts,
    several,
    voter,
)
from workbench.studies.planted.task import N_CLUSTERS

NAMES: tuple[Name, ...] = get_args(Name)
DECOYS = (TWIN, PRIOR, COPIER)
N_VOTERS = 7
"""So many that neither one nor two of them turn the vote."""


@dataclass(frozen=True)
class Kind:
    """A kind of planted model."""

    name: str
    what: str
    """What is special about it, in a few words."""
    parts: tuple[Part, ...]
    mlp: tuple[float, float] | None = None
    """Logits by which an MLP raises the label that most heads wrote at the decision, as a range."""

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """With the decoys."""
        return (*self.parts, *DECOYS)


_COARSE = (FILTER, COARSE_READOUT)
_FINE = (MATCH, REFINE_READOUT)


def _redundant(count: int) -> tuple[Part, ...]:
    filters, matches = several(FILTER, count), several(MATCH, count)
    names = [tuple(part.name for part in parts) for parts in (filters, matches)]
    return (*filters, *matches, *saturated_readouts(*names))


def _hydra() -> tuple[Part, ...]:
    heads = (FILTER, backup(FILTER, "relevant"), MATCH, backup(MATCH, "exact"))
    return (*heads, *saturated_readouts((heads[1].name,), (heads[3].name,)))


def _clusters() -> tuple[Part, ...]:
    filters = [for_cluster(at) for at in range(N_CLUSTERS)]
    readout = replace(COARSE_READOUT, above=tuple(part.name for part in filters))
    return (*filters, readout, *_FINE)


def _kinds(kinds: Sequence[Kind]) -> MappingProxyType[str, Kind]:
    return MappingProxyType({kind.name: kind for kind in kinds})


KINDS = _kinds(
    (
        Kind("chains", "two chains of two heads, one a phase", (*_COARSE, *_FINE)),
        Kind("carrier", "one head takes the label to the decision", (CARRIER,)),
        Kind(
            "carrier_options",
            "the label itself, by way of its option",
            (CARRYING_MATCH, CARRYING_READOUT),
        ),
        Kind(
            "carrier_mlp", "one head takes the label to an MLP", (ASKED_FOR_MLP,), mlp=(9.0, 11.0)
        ),
        Kind("mover", "a head passes on what another wrote", (*_COARSE, MATCH, COLLECTOR, MOVER)),
        Kind(
            "suppressor",
            "a head lowers the right label",
            (*_COARSE, MATCH, STRONG_READOUT, SUPPRESSOR),
        ),
        Kind("redundant_2", "two heads a step, each enough alone", _redundant(2)),
        Kind("redundant_3", "three heads a step, each enough alone", _redundant(3)),
        Kind("hydra", "a backup comes in when the main head is gone", _hydra()),
        Kind("query", "a head steers another's query", (*asking("cluster"), *asking("label"))),
        Kind("clusters", "a filter head for each cluster", _clusters()),
        Kind(
            "mlp",
            f"an MLP refines by the vote of {N_VOTERS} heads, none of which matters alone",
            (*_COARSE, *(voter(at, N_VOTERS) for at in range(1, N_VOTERS + 1))),
            mlp=(4.0, 5.0),
        ),
    )
)
"""All kinds by name."""


def kind_named(name: str) -> Kind:
    """A kind by its name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in KINDS:
        raise InputError(f"kind {name!r} is not one of {', '.join(KINDS)}")
    return KINDS[name]
