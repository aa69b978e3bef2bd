"""How a head set shows itself: in one line, and as a table of its pools."""

from typing import TYPE_CHECKING, Any

from workbench.markup import Piece, table, text
from workbench.measures import MEASURES
from workbench.phases import PHASES
from workbench.roles import HEAD_POOLS, POOL_WORDS

if TYPE_CHECKING:
    from workbench.headsets.headset import HeadSet
    from workbench.headsets.records import Effect


def describe(found: "HeadSet") -> str:
    """Model, prompts and the heads of every pool, in a line."""
    about = found.prompts
    pools = "; ".join(f"{row['pool']}: {row['heads']}" for row in _rows(found))
    return (
        f"head set of {found.model.name!r}, {about.n} prompts of {about.task!r} ({about.n_choose} "
        f"select, {about.n_verify} held out); {pools}"
    )


def headset_html(found: "HeadSet") -> str:
    """The line without the pools, and a table of them."""
    line = describe(found).rpartition("held out)")
    rows = [
        row | {"pool": Piece(row["pool"], POOL_WORDS[row["pool"]].colour, 0.25)}
        for row in _rows(found)
    ]
    return text([Piece(line[0] + line[1])]) + table(rows)


def _rows(found: "HeadSet") -> list[dict[str, Any]]:
    infos: dict[str, Any] = {info.pool: info for info in found.pools}
    rows = []
    for pool in HEAD_POOLS:
        heads = " ".join(f"{head.layer}-{head.head}" for head in found.in_pool(pool))
        if not heads and pool not in PHASES:
            continue
        measure: Any = POOL_WORDS[pool].measure
        info = infos.get(pool)
        effect = info.effects.get(measure) if info else None
        random = info.controls.get("random", {}).get(measure) if info else None
        rows.append(
            {
                "pool": pool,
                "heads": heads or "none",
                "all together": f"{MEASURES[measure].title} {_said(effect)}" if effect else "–",
                "random heads": _said(random) if random else "–",
                "events": effect.n if effect else "–",
            }
        )
    return rows


def _said(effect: "Effect") -> str:
    value, low, high = (
        "not known" if number is None else f"{round(number, 2) + 0.0:.2f}"  # no "-0.00"
        for number in (effect.effect, effect.low, effect.high)
    )
    return value if effect.low is None else f"{value} [{low}, {high}]"
