"""The paths step: through whose query, key or value the pooled heads act on one another."""

from collections.abc import Sequence

import pandas as pd

from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.paths import (
    PATH_COLUMNS,
    Path,
    paths_between,
    receivers,
    sweep_paths,
)
from workbench.errors import InputError
from workbench.heads import Head, head_name, parse_heads
from workbench.headsets.headset import HeadSet
from workbench.models.path_edges import ROUTES, check_paths
from workbench.phases import valid_pairs
from workbench.prompts.prompt import DecisionEvent
from workbench.roles import POOLED_ENDS
from workbench.runs.config import RunConfig
from workbench.runs.rows import sweep_rows
from workbench.runs.steps import HEADSET, Made
from workbench.runs.subject import Parts, Subject, Tables, runs_worth_patching

ENDS = ("sources", "destinations")
COLUMNS = [
    *(*PATH_COLUMNS, "positions", "measure", "half"),
    *("effect", "low", "high", "n", "n_excluded", "ends"),
]


def paths(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """Effects of all paths between the chosen ends, on the held-out half.

    The ends are the pooled heads, and those that the settings name or have named before: column
    `ends` says which were asked for. Without any path between pooled heads, or where the model's
    paths cannot be patched, there are none, and the reason is said.

    Ends of before that give no path beside the heads that are pooled now are said, too.

    Raises:
        InputError: ends that are named now do not name heads of the model, or give no path.
    """
    baseline = tables["baseline"]
    events = valid_pairs(subject.held_out, baseline)
    asked: dict[str, list[Path]] = {}
    for one in subject.asked("paths"):
        try:
            if not events:
                raise InputError("no valid pair in the held-out half")
            between = _between(subject, one, pooled_heads(tables[HEADSET]))
            check_paths(subject.model, max((event.longest for event in events), key=len))
        except InputError as error:
            now = one.only(ENDS) == subject.config.only(ENDS) and subject.asks_anew
            if now and (one.sources or one.destinations):
                raise
            named = _ends(one)
            said = "between pooled heads" if named == POOLED_ENDS else f"from {named}"
            subject.reporter.say(f"paths: none {said} ({error})")
            continue
        _say_shared(subject, one.destinations, between)
        asked[_ends(one)] = between
    every = list(dict.fromkeys(path for between in asked.values() for path in between))
    counts = {"events": len(events), "paths": len(every), "ends": list(asked)}
    if not every:
        return Made({"paths": pd.DataFrame(columns=COLUMNS)}, counts)
    effects, kept = _effects(subject, events, baseline, every, parts)
    frames = []
    for ends, between in asked.items():
        wanted = effects["target"].isin([every.index(path) for path in between])
        frames.append(effects[wanted].assign(ends=ends))
    table = pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS)
    order = ["positions", "measure", *PATH_COLUMNS]
    table = table.sort_values(order, kind="stable", ignore_index=True)
    return Made({"paths": table}, counts, kept)


def _between(subject: Subject, config: RunConfig, pooled: Sequence[Head]) -> list[Path]:
    """Paths between the ends of these settings.

    Raises:
        InputError: no head is pooled where pooled ones are meant, or there is no path.
    """
    named = (config.sources, config.destinations)
    if not all(named) and not pooled:
        raise InputError(
            "no head is pooled, so there are no paths between pooled heads; name both ends with "
            "--sources and --destinations"
        )
    sources, destinations = (parse_heads(text) if text else list(pooled) for text in named)
    return paths_between(subject.model, sources, destinations, ROUTES)


def _ends(config: RunConfig) -> str:
    """The ends that were asked for, as the table names them: "2-5 2-7 > pooled"."""
    if not (config.sources or config.destinations):
        return POOLED_ENDS
    named = (config.sources, config.destinations)
    return " > ".join(
        " ".join(head_name(*at) for at in parse_heads(text)) if text else POOLED_ENDS
        for text in named
    )


def _effects(
    subject: Subject,
    events: Sequence[DecisionEvent],
    baseline: pd.DataFrame,
    every: Sequence[Path],
    parts: Parts,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Effects of paths with the columns that name them and `target`, and the rows to keep."""
    model = subject.model
    into = [" ".join(head_name(*at) for at in receivers(model, path)) for path in every]
    rows = [
        (*path.source, path.destination[0], heads, path.route)
        for path, heads in zip(every, into, strict=True)
    ]
    names = [f"{head_name(*row[:2])} > {row[4]} of {row[3]}" for row in rows]
    runs_of = runs_worth_patching(baseline, subject.halves)
    place = [name for name in ("span", "decision") if name in subject.config.positions][:1]

    def patched(event: DecisionEvent, which: list[int], places: list[str]) -> pd.DataFrame:
        some = [every[at] for at in which]
        return pd.concat(sweep_paths(model, [event], some, places, runs_of), ignore_index=True)

    with subject.reporter.step(f"{len(every)} paths between heads", len(events)) as advance:
        swept = sweep_rows(
            events,
            names,
            place,
            runs_of,
            patched,
            before=subject.rows("paths"),
            parts=parts,
            advance=advance,
            together=subject.together,
        )
    effects = causal_effects(
        swept.asked,
        baseline,
        by=("target",),
        halves=("verify",),
        n_resamples=subject.config.n_resamples,
        seed=subject.config.seed,
    )
    named = pd.DataFrame(rows, columns=PATH_COLUMNS).join(effects.set_index("target"), how="inner")
    return named.rename_axis("target").reset_index(), swept.kept


def _say_shared(subject: Subject, named: str, between: Sequence[Path]) -> None:
    """One line where a head was named whose key and value are not its own."""
    asked = parse_heads(named) if named else []
    ends = [receivers(subject.model, path) for path in between if path.route != "q"]
    shared = {head_name(*at): group for at in asked for group in ends if at in group}
    if any(len(group) > 1 for group in shared.values()):
        subject.reporter.say(
            "paths: heads share keys and values, so by key and value "
            + ", ".join(
                f"{name} means {' '.join(head_name(*at) for at in group)}"
                for name, group in shared.items()
            )
        )


def pooled_heads(found: HeadSet) -> list[Head]:
    """The heads of all pools."""
    return [(head.layer, head.head) for head in found.heads]
