"""What single planted heads do, by features: where each looks, what it reads there and writes.

Features are directions of the residual stream (`weights.SIZES`), one for each cluster or label.
`any_…` is the sum over a feature's rows, `name:2` its third row alone, `members` raises the logits
of every label of a cluster, `always` is 1 at every token.
"""

from dataclasses import dataclass
from math import exp
from typing import Literal

from workbench.studies.planted.task import OFFERED_CLUSTERS, OFFERED_SIZE

Name = Literal["coarse", "refine", "carrier", "mover", "suppressor"]
"""What the method should call a head."""
Look = tuple[float, str, str]
"""Adds weight · Σ_i (query · feature_i)(key · other_i) to the attention score."""

LOGIT_SCALE = 10.0
"""Logits per unit of an `out` feature."""

SATURATED = 8.0
"""Attention on one marked option is e^8 times that on another: a second mark adds nothing."""


@dataclass(frozen=True)
class Part:
    """One planted head."""

    name: str
    pool: Name | Literal["decoy", "none"]
    """Its right name; a decoy, and a head that does its bit among many, should get none."""
    looks: tuple[Look, ...]
    reads: str
    writes: str
    size: tuple[float, float] = (1.0, 1.0)
    """Range of the factor on what it writes, drawn for every model."""
    above: tuple[str, ...] = ()
    """Parts that it reads, which lie in lower layers."""
    shares: str = ""
    """Part in whose key-value group it sits, where heads share keys and values."""


def _logits(low: float, high: float, share: float = 1.0) -> tuple[float, float]:
    """The size with which a feature, attended to with this share, changes `out` by such logits."""
    return low / LOGIT_SCALE / share, high / LOGIT_SCALE / share


def _share(marked: int, more: float) -> float:
    """Attention on all marked options, each of e^more times that on any other."""
    on_marked = marked * exp(more)
    return on_marked / (on_marked + OFFERED_CLUSTERS * OFFERED_SIZE - marked)


def _match(kind: str) -> tuple[Look, ...]:
    """An option that shares this with the evidence looks there, any other at the start.

    The start weighs half of a match: e^7 against 1 for every other token.
    """
    return (14.0, f"option_{kind}", f"evidence_{kind}"), (7.0, "always", "start")


def _gather(*more: Look) -> tuple[Look, ...]:
    """The decision token looks at the options, and any other token at the start."""
    return (8.0, "decide", "option"), *more, (4.0, "always", "start")


_ASK: tuple[Look, ...] = ((10.0, "decide", "evidence"), (4.0, "always", "start"))
"""The decision token looks at the evidence."""

_CLUSTER = ("evidence_cluster", "relevant")
_LABEL = ("evidence_label", "exact")

FILTER = Part("filter", "coarse", _match("cluster"), *_CLUSTER)
"""An option of the evidence's cluster takes over its *cluster*."""

COARSE_READOUT = Part(
    "coarse_readout",
    "coarse",
    _gather((2.0, "decide", "any_relevant")),
    "relevant",
    "members",
    _logits(9.0, 11.0, _share(OFFERED_SIZE, 2.0)),
    above=("filter",),
)
"""The decision looks at options marked relevant, and raises the labels of their cluster."""

MATCH = Part("match", "refine", _match("label"), *_LABEL)
"""The option that is the evidence's label takes over its *label*."""

REFINE_READOUT = Part(
    "refine_readout",
    "refine",
    _gather((3.0, "decide", "any_exact")),
    "exact",
    "out",
    _logits(4.0, 5.0, _share(1, 3.0)),
    above=("match",),
)
"""The decision looks at the exact option, and raises its label."""

TWIN = Part("twin", "decoy", _match("cluster"), "evidence_cluster", "unread", shares="filter")
"""Looks as the filter does, and writes where nothing reads."""

PRIOR = Part(
    "prior", "decoy", _gather((0.5, "decide", "salience")), "option_label", "out", (0.3, 0.3)
)
"""Raises the options on offer, some labels more than others, whatever the evidence."""

COPIER = Part("copier", "decoy", ((10.0, "always", "evidence"),), "evidence_label", "unread")
"""Copies the evidence's label from everywhere to where nothing reads."""

CARRIER = Part("carrier", "carrier", _ASK, "evidence_label", "out", _logits(9.0, 11.0))
"""The decision takes the label from the evidence itself, and answers it."""

ASKED_FOR_MLP = Part("carrier", "carrier", _ASK, *_LABEL)
"""As `CARRIER`, but what it writes is no logit: an MLP makes it one."""

CARRYING_MATCH = Part("match", "carrier", _match("label"), *_LABEL)
CARRYING_READOUT = Part(
    "readout",
    "carrier",
    _gather((3.0, "decide", "any_exact")),
    "exact",
    "out",
    _logits(9.0, 11.0, _share(1, 3.0)),
    above=("match",),
)
"""The fine chain alone, so strong that it does both phases."""

COLLECTOR = Part(
    "collector",
    "refine",
    REFINE_READOUT.looks,
    "exact",
    "exact",
    (1 / _share(1, 3.0), 1 / _share(1, 3.0)),
    above=("match",),
)
"""The decision looks at the exact option, and takes over its label without raising it."""

MOVER = Part(
    "mover",
    "mover",
    ((10.0, "decide", "decide"), (4.0, "always", "start")),
    "exact",
    "out",
    _logits(4.0, 5.0),
    above=("collector",),
)
"""The decision looks at itself in all variants, and raises the label that the collector wrote."""

SUPPRESSOR = Part(
    "suppressor",
    "suppressor",
    _gather((3.0, "decide", "any_exact")),
    "exact",
    "out",
    _logits(-2.5, -2.0, _share(1, 3.0)),
    above=("match",),
)
"""The decision looks at the exact option, and lowers its label."""

STRONG_READOUT = Part(
    "refine_readout",
    "refine",
    REFINE_READOUT.looks,
    "exact",
    "out",
    _logits(6.0, 7.0, _share(1, 3.0)),
    above=("match",),
)
"""A read-out that outweighs the suppressor."""


def several(part: Part, count: int) -> tuple[Part, ...]:
    """Heads that do the same, as `match`, `match_2`, `match_3`."""
    names = [part.name, *(f"{part.name}_{at}" for at in range(2, count + 1))]
    return tuple(Part(name, part.pool, part.looks, part.reads, part.writes) for name in names)


def saturated_readouts(filters: tuple[str, ...], matches: tuple[str, ...]) -> tuple[Part, ...]:
    """Read-outs for which one mark is as good as three: they read the marked option, not the mark.

    Where options carry different numbers of marks, those with most are looked at alone.
    """
    coarse = _gather((SATURATED, "decide", "any_relevant"))
    refine = _gather((SATURATED, "decide", "any_exact"))
    return (
        Part(
            "coarse_readout",
            "coarse",
            coarse,
            "option_cluster",
            "members",
            _logits(9.0, 11.0),
            above=filters,
        ),
        Part(
            "refine_readout",
            "refine",
            refine,
            "option_label",
            "out",
            _logits(4.0, 5.0),
            above=matches,
        ),
    )


def backup(part: Part, mark: str) -> Part:
    """A head that does what `part` does, twice as strongly, where `part` left no mark."""
    silent: Look = (-14.0, f"any_{mark}", "evidence")
    return Part(
        f"{part.name}_backup",
        part.pool,
        (*part.looks, silent),
        part.reads,
        part.writes,
        (2.0, 2.0),
        above=(part.name,),
    )


def for_cluster(at: int) -> Part:
    """A filter head of one cluster, blind to the others."""
    looks: tuple[Look, ...] = (
        (14.0, f"option_cluster:{at}", f"evidence_cluster:{at}"),
        (7.0, "always", "start"),
    )
    return Part(f"filter_{at}", "coarse", looks, f"evidence_cluster:{at}", f"relevant:{at}")


def asking(kind: Literal["cluster", "label"]) -> tuple[Part, Part]:
    """Composition through a query: what one head writes at the decision steers another's query.

    The first asks the evidence for its cluster or label. The second looks for options that have it,
    and raises them; what it reads there is the same in all variants.
    """
    pool: Name = "coarse" if kind == "cluster" else "refine"
    read, write = _CLUSTER if kind == "cluster" else _LABEL
    write_back, size = (
        ("members", _logits(9.0, 11.0)) if kind == "cluster" else ("out", _logits(4.0, 5.0))
    )
    find: tuple[Look, ...] = ((12.0, write, f"option_{kind}"), (4.0, "always", "start"))
    asks = Part(f"{kind}_asker", pool, _ASK, read, write)
    finds = Part(
        f"{kind}_finder", pool, find, f"option_{kind}", write_back, size, above=(f"{kind}_asker",)
    )
    return asks, finds


def voter(at: int, of: int) -> Part:
    """One of many heads that bring the evidence's label to the decision, for an MLP to count."""
    return Part(f"voter_{at}", "none", _ASK, *_LABEL, size=(1 / of, 1 / of))
