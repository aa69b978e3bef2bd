"""Which teacher heads students learn from: the paper's rule, and controls.

All are chosen from tables of the teacher, before any student is trained:

- `paper`: per phase the heads of the highest score of the paper's rule, guarded against sinks:
  CoarseScore at early tokens of the chain, RefineScore at later ones.
- `paper_random0`, `paper_random1`: as many others of the same layers; `decision_random0` and `1`
  the same for the pools of a run.
- `knows`: heads that know and do nothing: of those whose own effect is below `NOTHING`, those from
  whose output the right options are best read.
- `does`: heads that do something and know least: of those with an effect of at least `SOMETHING`,
  those from whose output the right options are read worst.

A head's *effect* is the largest share, without sign, that it alone restores of Focus or takes of
Confusion with its output patched, where the chain is written (`parting`) or at the answer (`span`).
What it *knows* is measured by `knowing`.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from workbench.errors import InputError, require
from workbench.files import write_text
from workbench.heads import Head, head_name
from workbench.headsets.controls import controls
from workbench.phases import POOLS, Pool

NOTHING = 0.005
SOMETHING = 0.01
SIZE = 8
"""Heads of each pool."""
KEYS = ["layer", "head"]
EFFECTS = ("focus", "confusion")
Pooled = Mapping[Pool, Sequence[Head]]
NOTES = {
    "paper": "the highest coarse_chain_guarded and refine_chain_guarded",
    "knows": "know most of those that do nothing",
    "does": "know least of those that do something",
}


def head_table(
    scores: pd.DataFrame, at_chain: pd.DataFrame, at_answer: pd.DataFrame, knows: pd.DataFrame
) -> pd.DataFrame:
    """Columns layer, head, coarse, refine (scores), effect, early, late (what it knows).

    Args:
        scores: layer, head, coarse_chain_guarded, refine_chain_guarded.
        at_chain: effects of single heads at places of the chain, see `EFFECTS`; the rows of
            `parting` patched by z are read.
        at_answer: the same at the answer, the rows of `span`.
        knows: of `knowing.knowing`.

    Raises:
        InputError: a table lacks a column, or tables are of other heads.
    """
    require(scores, "scores", [*KEYS, "coarse_chain_guarded", "refine_chain_guarded"])
    require(knows, "knowing", [*KEYS, "early", "late"])
    found = scores.loc[:, [*KEYS, "coarse_chain_guarded", "refine_chain_guarded"]].rename(
        columns={"coarse_chain_guarded": "coarse", "refine_chain_guarded": "refine"}
    )
    effects = []
    for table, place in ((at_chain, "parting"), (at_answer, "span")):
        require(table, "effects", [*KEYS, "place", "intervention", *EFFECTS])
        rows = table.loc[(table["place"] == place) & (table["intervention"] == "z")]
        largest = rows.loc[:, list(EFFECTS)].abs().max(axis=1)
        effects.append(pd.DataFrame({**rows[KEYS], "effect": largest}))
    effect = pd.concat(effects).groupby(KEYS, as_index=False)["effect"].max()
    found = found.merge(effect, on=KEYS).merge(knows.loc[:, [*KEYS, "early", "late"]], on=KEYS)
    if len(found) != len(scores):
        raise InputError(f"scores are of {len(scores)} heads, all tables together of {len(found)}")
    return found


def choose_heads(
    table: pd.DataFrame, decision: Pooled | None = None, *, size: int = SIZE, seed: int = 0
) -> dict[str, Pooled]:
    """Heads of each set by pool.

    Args:
        table: of `head_table`.
        decision: pools of a run, found at the decision, for which random sets are drawn, too;
            its heads stand in no control.
        size: heads of each pool.
        seed: of the random sets.

    Raises:
        InputError: too few heads for a set.
    """
    paper: Pooled = {
        pool: _first(table.sort_values(by=pool, ascending=False), size) for pool in POOLS
    }
    found = {"paper": paper} | ({"decision": decision} if decision else {})
    pooled = {head for pools in found.values() for heads in pools.values() for head in heads}
    sets: dict[str, Pooled] = {"paper": paper}
    for name, pools in found.items():
        sets |= _random(table, name, pools, pooled, seed)
    keys = list(zip(table["layer"], table["head"], strict=True))
    free = table.loc[[key not in pooled for key in keys]]
    sets["knows"] = _in_turn(free.loc[free["effect"] < NOTHING], size, ascending=False)
    sets["does"] = _in_turn(free.loc[free["effect"] >= SOMETHING], size)
    return sets


def _random(
    table: pd.DataFrame, name: str, pools: Pooled, barred: Collection[Head], seed: int
) -> dict[str, Pooled]:
    """Two sets of as many heads of the same layers, none of them pooled or in two pools."""
    sets: dict[str, Pooled] = {}
    n_heads, norms = 1 + int(table["head"].to_numpy().max()), table.assign(output_norm=1.0)
    for draw in (0, 1):
        drawn: dict[Pool, Sequence[Head]] = {}
        for pool, heads in pools.items():
            taken = [*barred, *(head for one in drawn.values() for head in one)]
            some = controls(heads, norms, n_heads, seed + draw, 1, pooled=taken)["random"]
            if not some:
                raise InputError(f"too few heads outside the {pool} pool for random ones")
            drawn[pool] = some[0]
        sets[f"{name}_random{draw}"] = drawn
    return sets


def _in_turn(table: pd.DataFrame, size: int, *, ascending: bool = True) -> Pooled:
    """The first by what they know at late steps; of the rest by what they know at early ones."""
    late = _first(table.sort_values(by="late", ascending=ascending), size)
    left = [key not in late for key in zip(table["layer"], table["head"], strict=True)]
    early = _first(table.loc[left].sort_values(by="early", ascending=ascending), size)
    return {"coarse": early, "refine": late}


def _first(table: pd.DataFrame, size: int) -> list[Head]:
    if len(table) < size:
        raise InputError(f"{len(table)} heads are left for a pool of {size}")
    first = table.head(size)
    return [(int(a), int(b)) for a, b in zip(first["layer"], first["head"], strict=True)]


def write_heads(sets: Mapping[str, Pooled], out: Path) -> None:
    """A file a set, as ones made by hand."""
    for name, pools in sets.items():
        heads = [
            {"layer": layer, "head": head, "pool": pool}
            for pool in POOLS
            for layer, head in pools[pool]
        ]
        content = {"note": NOTES.get(name, "drawn from the layers of the pools"), "heads": heads}
        write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")


def described(sets: Mapping[str, Pooled], table: pd.DataFrame) -> pd.DataFrame:
    """Columns set, pool, heads, effect (mean), early, late (mean of what they know)."""
    indexed = table.set_index(KEYS)
    rows = []
    for name, pools in sets.items():
        for pool, heads in pools.items():
            own = indexed.loc[list(heads)]
            means = {column: own[column].mean() for column in ("effect", "early", "late")}
            named = " ".join(head_name(*head) for head in heads)
            rows.append({"set": name, "pool": pool, **means, "heads": named})
    return pd.DataFrame(rows)
