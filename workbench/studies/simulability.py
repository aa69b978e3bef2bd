"""Leakage-adjusted simulability of the chains that a teacher and its students write for a task.

Every model writes a chain and an answer to the same prompts, of labels that none was trained on. A
simulator of its own learns from some of the prompts what the model answers, and is tested on the
others: one example a decision (see `workbench.distill.evaluation.simulability`).

Chains stand in three versions, and one simulator reads all of them (see `simulated_chains`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.utilities.devices import get_device

from workbench.distill.evaluation.config import SimulatorConfig
from workbench.distill.evaluation.simulability import (
    SEEN,
    SUMMARY,
    las_difference,
    simulability,
    summarise,
)
from workbench.distill.training.student import check_tokenizers
from workbench.errors import InputError
from workbench.files import alone_in, claim, make_folder, read_parquet, write_table, write_text
from workbench.models import loading
from workbench.models.folders import check_files
from workbench.models.sources import is_adapter
from workbench.progress import Reporter
from workbench.prompts.choices import open_task
from workbench.studies.named_models import TEACHER, NamedModels, arm_in, part_of
from workbench.studies.reported import reported_simulability
from workbench.studies.simulated_chains import KINDS, written_rows

SETTINGS, ROWS, CASES, ABOUT = "settings.json", "rows.parquet", "cases.parquet", "simulator.json"
KEYS = ["id", "event", "kind"]
LEARNT = 10_000
"""Added to the seed for prompts that simulators learn from."""
DIFFERENCES = ["model", "against", "kind", "value", "low", "high", "note"]
ANSWERED = ["answered", "right"]


@dataclass(frozen=True)
class SimulabilityStudy:
    """What the study is about.

    Attributes:
        models: the teacher, whose task it is, and its students.
        simulator: model that each simulator is made of; the teacher unless given.
        task: of the prompts; "auto" is what the teacher was trained on.
        n_train: prompts that a simulator learns from.
        n_test: prompts that it is tested on.
        split: labels of the teacher's training ("seen"), or not.
        config: how simulators are trained.
        max_new_tokens: of a chain and its answer; unless given, what the longest right one has,
            and some more.
        n_resamples: behind every interval.
        seed: of prompts and resamples.
    """

    models: NamedModels
    simulator: str | None = None
    task: str = "auto"
    n_train: int = 1024
    n_test: int = 256
    split: str = "unseen"
    config: SimulatorConfig = field(default_factory=SimulatorConfig)
    max_new_tokens: int | None = None
    n_resamples: int = 2000
    seed: int = 1


@dataclass(frozen=True)
class Simulated:
    """Tables of the study.

    Attributes:
        summary: by model and kind of chain: see `simulability.SUMMARY`; n (examples), answered
            (share of the test decisions that the model answers with an option; others are left
            out), right (of these, share with the right one), paper (reported, MIMIC-IV), note.
        differences: LAS of each model less the teacher's, and less the first student's.
        cases: every test example of every model.
    """

    summary: pd.DataFrame
    differences: pd.DataFrame
    cases: pd.DataFrame


def study_simulability(
    study: SimulabilityStudy,
    out: Path,
    *,
    part: str | None = None,
    batch_size: int = 640,
    device: str | None = None,
    dtype: str = "auto",
    reporter: Reporter | None = None,
) -> Simulated | None:
    """Simulate every model that was not simulated before; then all tables.

    With `part`, "1/4", only every fourth model is, and there are no tables: other processes
    do the others.

    Args:
        study: what it is about.
        out: a folder, with one of each model's name.
        part: "0/4", "1/4" and so on.
        batch_size: chains written together.
        device: an accelerator if there is one.
        dtype: in which chains are written; auto: bfloat16 on an accelerator, else float32.
        reporter: where progress is told.

    Raises:
        InputError: a model or task that cannot be used, or a folder of other settings.
    """
    reporter = reporter or Reporter()
    wanted = part_of(list(study.models.all), part)
    hashes = study.models.weights()
    place = loading.parse_device(device or get_device())
    wide = place.type == "cpu"
    kind = torch.float32 if wide else torch.bfloat16
    kind = kind if dtype == "auto" else loading.parse_dtype(dtype)
    simulator = study.simulator or study.models.teacher
    simulator_hash = loading.weights_sha256(loading.model_folder(simulator))
    given = {"task": study.task, "split": study.split, "seed": study.seed, "dtype": str(kind)}
    given |= {"n_train": study.n_train, "n_test": study.n_test, "room": study.max_new_tokens}
    given |= {"simulator": simulator_hash, **asdict(study.config)}
    missing = [name for name in wanted if not (out / name / CASES).is_file()]
    _check_models(study, missing, simulator)
    for name in wanted:
        make_folder(out / name)
        asked = {**given, "weights": hashes[name]}
        claim(out / name, out / name / SETTINGS, asked, "the simulability of a model")
    for number, name in enumerate(missing, start=1):
        folder, source = out / name, study.models.all[name]
        reporter.say(f"{name}: {number} of {len(missing)} models")
        with alone_in(folder):
            if not (folder / ROWS).is_file():
                rows = _rows_of(source, study, batch_size, place, kind, reporter)
                write_table(folder / ROWS, rows)
            rows = read_parquet(folder / ROWS)
            cases, about = _cases_of(rows, study, simulator, place, reporter)
            write_text(folder / ABOUT, json.dumps(about, indent=1))
            write_table(folder / CASES, cases)
    if part is not None:
        return None
    frames = {name: read_parquet(out / name / CASES) for name in study.models.all}
    return tables(frames, n_resamples=study.n_resamples, seed=study.seed)


def _check_models(study: SimulabilityStudy, names: Sequence[str], simulator: str) -> None:
    """Refuse what would end the study at a model, after others are done."""
    if not names:
        return
    home = loading.model_folder(study.models.teacher)
    open_task(study.task, model=home, split=study.split)
    if loading.read_tokenizer(loading.model_folder(simulator)) is None:
        raise InputError(f"simulator {simulator}: has no tokenizer to read texts with")
    theirs = loading.read_tokenizer(home)
    for name in names:
        folder = loading.model_folder(study.models.all[name])
        own = loading.read_tokenizer(folder)
        if own is None:
            raise InputError(f"model {name!r} has no tokenizer; put the teacher's into its folder")
        check_tokenizers(theirs, own)
        if folder.is_dir() and not is_adapter(folder):
            check_files(folder)


def _cases_of(
    rows: pd.DataFrame,
    study: SimulabilityStudy,
    simulator: str,
    device: torch.device,
    reporter: Reporter,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """The test rows without their texts, with x, e and xe where there is an output to simulate."""
    answered = rows.loc[rows["output"] != ""]
    parts = [
        answered.loc[answered["part"] == which].drop(columns="part") for which in ("train", "test")
    ]
    every = rows.loc[rows["part"] == "test", [*KEYS, "output", "right"]]
    if any(part.empty for part in parts):
        reporter.say("the model answers with no option: nothing to simulate")
        return every.assign(**dict.fromkeys(SEEN, False), output=""), {}
    found = simulability(
        *parts,
        simulator=simulator,
        config=study.config,
        n_resamples=1,
        device=str(device),
        reporter=reporter,
    )
    read = every.merge(found.cases[[*KEYS, *SEEN]], on=KEYS, how="left")
    read[list(SEEN)] = read[list(SEEN)].eq(True)  # what has no output is left out of all means
    return read, found.simulator


def tables(frames: Mapping[str, pd.DataFrame], *, n_resamples: int, seed: int) -> Simulated:
    """Summary and differences of the cases of several models, by name."""
    seeded = {"n_resamples": n_resamples, "seed": seed}
    reported = reported_simulability()
    summaries, differences = [], []
    kept = {name: cases.loc[cases["output"] != ""] for name, cases in frames.items()}
    for name, cases in kept.items():
        found = summarise(cases, **seeded)
        if cases.empty:
            found = pd.DataFrame({"kind": KINDS, "n": 0, "note": "answers with no option"})
        found["answered"] = len(cases) / len(frames[name])
        found["right"] = float(cases["right"].mean())
        found["paper"] = reported.get(arm_in(name), (float("nan"),))[0]
        summaries.append(found.assign(model=name))
        for against in [other for other in list(kept)[:2] if name not in (other, TEACHER)]:
            for kind in KINDS:
                row = {"model": name, "against": against, "kind": kind, "note": ""}
                both = [part.loc[part["kind"] == kind] for part in (cases, kept[against])]
                try:
                    row |= las_difference(*both, **seeded)
                except InputError as error:
                    row["note"] = str(error)
                differences.append(row)
    summary = pd.concat(summaries, ignore_index=True)
    columns = ["model", "kind", *SUMMARY, "n", *ANSWERED, "paper", "note"]
    every = [cases.assign(model=name) for name, cases in frames.items()]
    return Simulated(
        summary.reindex(columns=columns),
        pd.DataFrame(differences).reindex(columns=DIFFERENCES),
        pd.concat(every, ignore_index=True),
    )


def _rows_of(
    source: str,
    study: SimulabilityStudy,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    reporter: Reporter,
) -> pd.DataFrame:
    """Rows of a model's chains; column part is "train" or "test", which have seeds of their own."""
    home = loading.model_folder(study.models.teacher)
    task = open_task(study.task, model=home, split=study.split)
    folder = loading.model_folder(source)
    tokenizer = loading.read_tokenizer(folder)
    model: Any = loading.read_model(folder, dtype=dtype).to(device)  # pyright: ignore
    model.set_attn_implementation("sdpa")  # as right as eager, and faster
    return written_rows(
        model,
        tokenizer,
        task,
        {"test": (study.n_test, study.seed), "train": (study.n_train, study.seed + LEARNT)},
        room=study.max_new_tokens,
        batch_size=batch_size,
        reporter=reporter,
    )
