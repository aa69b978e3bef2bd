"""Focus and Confusion along the chains that a teacher and its students write, by both readouts.

The same prompts for all, a decision of each in turn. Every model writes its own chain; after each
step it is asked for the answer (*probability*: `focus`, `confusion`), and what it has written so
far is compared with texts (*text*: `focus_text`, `confusion_text`, see
`workbench.analysis.chains.texts`). Texts of all models are embedded by the teacher, or by the same
other model: in its own stream each student would be measured by another rule.

Values of a model are kept in a folder of its name, and not measured again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.chains.embeddings import Embedding, Remembered, open_embedding
from workbench.analysis.chains.texts import along, text_values, with_contrasts
from workbench.analysis.chains.trajectories import READOUTS, chain_values
from workbench.distill.training.student import check_tokenizers
from workbench.errors import InputError
from workbench.files import alone_in, claim, make_folder, read_parquet, write_table
from workbench.models.hooked import HookedModel
from workbench.models.loading import model_folder, read_tokenizer
from workbench.progress import Reporter
from workbench.studies.named_models import TEACHER, NamedModels, arm_in, part_of
from workbench.studies.paper_chains import Asked, make_chains
from workbench.studies.reported import reported_along

VALUES, SETTINGS = "values.parquet", "settings.json"
KEYS = ["id", "event", "step", "share"]
QUANTITIES = (
    *("focus", "focus_text", "focus_text_contrast"),
    *("confusion", "confusion_text", "confusion_text_contrast"),
)
PLACES = {"focus": (0.0, 0.25, 1.0), "confusion": (0.0, 0.5, 0.75, 1.0)}
"""Shares of the chain at which the paper's table has Focus and Confusion."""
REPORTED = {
    TEACHER: "teacher, MIMIC-IV",
    "phases": "student, full",
    "phases-p2": "student, phase 1 only",
    "phases-p1": "student, phase 2 only",
}
"""Arm → row of the paper; an arm is named by what it lacks."""
TABLE = ["model", "quantity", "t", "value", "low", "high", "n", "paper"]
DIFFERENCES = ["model", "against", "quantity", "t", "value", "low", "high", "n"]


@dataclass(frozen=True)
class Trajectories:
    """What the study is about.

    Attributes:
        models: the teacher, whose task it is, and its students.
        n: prompts, a decision each.
        task: of the prompts; "auto" is what the teacher was trained on.
        split: labels of the teacher's training ("seen"), or not.
        embedding: of texts, see `open_embedding`; "own" is the teacher's stream.
        n_resamples: behind every interval.
        seed: of prompts and resamples.
    """

    models: NamedModels
    n: int = 60
    task: str = "auto"
    split: str = "unseen"
    embedding: str = "own"
    n_resamples: int = 2000
    seed: int = 1


@dataclass(frozen=True)
class Along:
    """Tables of the study.

    Attributes:
        values: every decision after every step: model, id, event, step, share, closed (whether the
            model ended the chain), focus, confusion, and the text readouts with their contrasts.
        along: means along the chain, see `texts.along`.
        table: the same at the paper's places, with what it reports (paper).
        differences: each model less the teacher, and less the first student, on the same decisions
            at the same places.
    """

    values: pd.DataFrame
    along: pd.DataFrame
    table: pd.DataFrame
    differences: pd.DataFrame


def study_trajectories(
    study: Trajectories,
    out: Path,
    *,
    part: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    reporter: Reporter | None = None,
) -> Along | None:
    """Follow every model that was not followed before; then all tables.

    With `part`, "1/4", only every fourth model is followed, and there are no tables: other
    processes do the others.

    Raises:
        InputError: a model or task that cannot be used, students with other tokens than the
            teacher's, or a folder of other settings.
    """
    reporter = reporter or Reporter()
    wanted = part_of(list(study.models.all), part)
    hashes = study.models.weights()
    given = {"n": study.n, "task": study.task, "split": study.split, "seed": study.seed}
    given |= {"embedding": study.embedding, "teacher": hashes[TEACHER], "dtype": dtype}
    _check_tokenizers(study.models)
    for name in study.models.all:
        if (out / name / SETTINGS).is_file() or name in wanted:
            make_folder(out / name)
            asked = {**given, "weights": hashes[name]}
            claim(out / name, out / name / SETTINGS, asked, "the trajectory of a model")
    load = {"dtype": dtype, "device": device, "reporter": reporter}
    missing = [name for name in wanted if not (out / name / VALUES).is_file()]
    embedding: Embedding | None = None
    for number, name in enumerate(missing, start=1):
        if embedding is None:
            teacher = HookedModel.load(study.models.teacher, **load)
            embedding = Remembered(open_embedding(study.embedding, teacher))
        reporter.say(f"{name}: {number} of {len(missing)} models")
        model = HookedModel.load(study.models.all[name], **load)
        with alone_in(out / name):
            found = _followed(model, study, embedding, reporter)
            write_table(out / name / VALUES, found)
    if part is not None:
        return None
    frames = {name: read_parquet(out / name / VALUES) for name in study.models.all}
    return _tables(frames, study)


def _check_tokenizers(models: NamedModels) -> None:
    """Refuse students that read other tokens; one without a tokenizer cannot be followed."""
    theirs = read_tokenizer(model_folder(models.teacher))
    for name, source in models.all.items():
        own = read_tokenizer(model_folder(source))
        if own is None:
            raise InputError(f"model {name!r} has no tokenizer; put the teacher's into its folder")
        check_tokenizers(theirs, own)


def _followed(
    model: HookedModel, study: Trajectories, embedding: Embedding, reporter: Reporter
) -> pd.DataFrame:
    """Both readouts after every step of a model's chains; columns as `Along.values`, no model."""
    asked = Asked(study.models.teacher, study.n, study.task, split=study.split)
    chains = make_chains(model, asked, study.seed, None, reporter, batch_size=study.n)
    closed = dict(zip(chains.written["id"], chains.written["closed"], strict=True))
    frames = []
    with reporter.step("along its chains", len(chains.readings)) as advance:
        for done, reading in enumerate(chains.readings, start=1):
            cases = chains.cases[reading.id]
            # Each in turn by the prompt's number: the same decision of every model.
            case = cases[int(reading.id.removeprefix("p")) % len(cases)]
            texts = text_values(embedding, reading, model.tokenizer, "")
            texts = texts.loc[texts["event"] == case.event.event].drop(columns="model")
            asked_after = chain_values(model, [case])[["id", "event", "step", *READOUTS]]
            table = texts.merge(asked_after, on=["id", "event", "step"], how="left")
            frames.append(table.assign(closed=bool(closed[reading.id])))
            advance(done, len(chains.readings))
    if not frames:
        raise InputError(f"model {model.info.name!r} writes no chains: nothing to follow")
    return with_contrasts(pd.concat(frames, ignore_index=True))


def _tables(frames: dict[str, pd.DataFrame], study: Trajectories) -> Along:
    values = pd.concat(
        [frame.assign(model=name) for name, frame in frames.items()], ignore_index=True
    )
    values = values.reindex(columns=["model", *KEYS, "closed", *QUANTITIES])
    seeded: dict[str, Any] = {"n_resamples": study.n_resamples, "seed": study.seed}
    means = along(values, QUANTITIES, **seeded)
    return Along(values, means, _paper_table(means), differences(values, **seeded))


def _paper_table(means: pd.DataFrame) -> pd.DataFrame:
    """The means at the paper's places, beside what it reports of the same arm."""
    wanted = [
        means.loc[
            means["quantity"].str.startswith(readout)
            & np.isclose(means["t"].to_numpy(float)[:, None], places).any(axis=1)
        ]
        for readout, places in PLACES.items()
    ]
    table = pd.concat(wanted, ignore_index=True)
    reported = {
        (row["model"], row["quantity"], row["t"]): row["value"]
        for row in reported_along().to_dict("records")
    }
    rows = zip(table["model"], table["quantity"], table["t"], strict=True)
    table["paper"] = [
        reported.get((REPORTED.get(arm_in(model), ""), quantity, t), np.nan)
        for model, quantity, t in rows
    ]
    order = {name: at for at, name in enumerate(dict.fromkeys(table["model"]))}
    table = table.sort_values("model", key=lambda names: names.map(order), kind="stable")
    return table.reindex(columns=TABLE).reset_index(drop=True)


def differences(values: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each model less the first two (teacher, first student) on the decisions that both have.

    Columns: model, against, quantity, t (of `PLACES`), value, low, high (95 % over prompts), n.
    """
    shares = sorted({t for places in PLACES.values() for t in places})
    frames = {name: at_places(part, shares) for name, part in values.groupby("model", sort=False)}
    pairs = [
        (name, against)
        for against in list(frames)[:2]
        for name in frames
        if name not in (against, TEACHER)
    ]
    if not pairs:
        return pd.DataFrame(columns=DIFFERENCES)
    rows = []
    for name, against in pairs:
        both = frames[name].merge(frames[against], on=["id", "event", "share"], suffixes=("", "_"))
        if both.empty:
            continue
        for quantity in QUANTITIES:
            both[quantity] -= both[f"{quantity}_"]
        found = along(
            both.assign(model=name), QUANTITIES, shares=shares, n_resamples=n_resamples, seed=seed
        )
        rows.append(found.assign(against=against))
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=DIFFERENCES)
    kept = [
        t in PLACES["focus" if str(quantity).startswith("focus") else "confusion"]
        for quantity, t in zip(table["quantity"], table["t"], strict=True)
    ]
    return table.loc[kept].reindex(columns=DIFFERENCES).reset_index(drop=True)


def at_places(values: pd.DataFrame, shares: Sequence[float]) -> pd.DataFrame:
    """One model's values at some shares of each chain, where a step's last until the next."""
    rows = []
    for _, event in values.groupby(["id", "event"], sort=False):
        event = event.sort_values("share")
        at = np.searchsorted(event["share"].to_numpy(float) - 1e-9, shares, "right") - 1
        rows.append(event.iloc[at.clip(min=0)].assign(share=list(shares)))
    return pd.concat(rows, ignore_index=True).reindex(columns=["id", "event", "share", *QUANTITIES])
