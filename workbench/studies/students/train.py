"""One student after the other in a process, beside a teacher that is loaded once.

What a student becomes is decided by the same parts that `distill` uses: layers copied from the
teacher, its heads matched, the Trainer and its terms. Left out is what one student does not need
here: folders, checkpoints, traces of its own.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed

from workbench.distill.config import CopiedLayers, DistillationConfig
from workbench.distill.examples.stream import Collator
from workbench.distill.matching.ablation import ablation_effects, match_by_ablation
from workbench.distill.matching.files import heads_for
from workbench.distill.matching.head_map import HeadMap, PooledHead
from workbench.distill.matching.pair import pair_heads
from workbench.distill.reading.batches import completed
from workbench.distill.training.arguments import trainer_arguments
from workbench.distill.training.copied import copy_layers
from workbench.distill.training.student import check_vocabulary
from workbench.distill.training.terms import drop_projections, keep_widths
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.files import write_text
from workbench.heads import Head
from workbench.models import loading
from workbench.studies.students.asked import REPORT, SEEN, Asked, ask, rows_for
from workbench.studies.students.jobs import TEACHER, Job
from workbench.studies.students.samples import Samples
from workbench.studies.students.writer import Writer

MATCHING_SIZE = 8
"""Rows on which heads are matched by attention."""
ABLATED_SIZE = 4
"""Rows on which they are matched by ablation, a forward for every head and row."""
ACCUMULATION = {"minilm": 4, "hidden": 2, "cot+logits": 2}
"""Forwards of a step of arms that compare whole maps or streams, so that several fit on a card."""
EFFECTS = "effects.json"
Result = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """What all students of a process share.

    Attributes:
        teacher: model folder or name.
        heads: head-set files by name.
        samples: that rows for training are drawn from.
        asked: prompts by `asked.REPORT`, `SELECT` and `SEEN`.
        batch_size: rows of a step.
        accumulation: forwards of a step; arms that hold more have more (`ACCUMULATION`).
        warmup: share of the steps up to the peak of the learning rate.
        evaluations: shares of the steps after which a student is asked.
        workers: processes that collate.
        scratch: folder for what one process measures for all.
        keep: folder for the models of `kept_seed`, in bfloat16.
        kept_seed: students of which are kept.
        until: seconds since the epoch after which no student is trained on.
    """

    teacher: str
    heads: Mapping[str, str]
    samples: Samples
    asked: Mapping[str, Asked]
    batch_size: int = 24
    accumulation: int = 1
    warmup: float = 0.1
    evaluations: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    workers: int = 0
    scratch: Path | None = None
    keep: Path | None = None
    kept_seed: int = 0
    until: float = math.inf
    _kept: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def device(self) -> torch.device:
        """The first one that is seen, or the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def folder(self) -> Path:
        """Of the teacher."""
        return loading.model_folder(self.teacher)

    @cached_property
    def tokenizer(self) -> Any:
        """The teacher's."""
        return loading.read_tokenizer(self.folder)

    @cached_property
    def source(self) -> Any:
        """The teacher in float32 on the CPU, from which layers are copied."""
        model: Any = loading.read_model(self.folder, dtype=torch.float32)
        model.set_attn_implementation("sdpa")
        return model.eval()

    @cached_property
    def model(self) -> Any:
        """The teacher that is learned from, in half precision on CUDA."""
        if self.device.type == "cpu":
            return self.source
        model: Any = loading.read_model(self.folder, dtype=torch.bfloat16)
        model.set_attn_implementation("sdpa")
        return model.to(self.device).eval()

    def pools(self, name: str) -> tuple[PooledHead, ...]:
        """Heads of a head-set file."""
        if ("pools", name) not in self._kept:
            self._kept["pools", name] = heads_for(self.heads[name], self.folder)
        return self._kept["pools", name]

    def student(self, layers: int) -> Any:
        """A new student of copied layers, on the device."""
        if ("layers", layers) not in self._kept:
            copied = copy_layers(self.source, self.layers(layers))
            self._kept["layers", layers] = copied.state_dict(), copied.config
        weights, config = self._kept["layers", layers]
        student = type(self.source)(config)
        student.load_state_dict(weights)
        student.tie_weights()
        student.set_attn_implementation("sdpa")
        return student.float().to(self.device)

    def layers(self, n: int) -> tuple[int, ...]:
        """Which layers are copied for a student of so many."""
        return CopiedLayers(layers=n).of(self.source.config.num_hidden_layers)

    def writer(self, model: Any) -> Writer:
        """One that writes as the model does; the last one's room is used again if it fits."""
        layers = model.config.num_hidden_layers
        if self._kept.get("writer", (None,))[0] != layers:
            self._kept.pop("writer", None)
            n = sum(map(len, self.asked.values()))
            room = max(len(row) for one in self.asked.values() for row in one.ids)
            room += max(one.most for one in self.asked.values())
            writer = Writer(model.config, self.device, self.tokenizer.eos_token_id, n, room)
            self._kept["writer"] = layers, writer
        writer = self._kept["writer"][1]
        writer.load(model)
        return writer

    def headmap(self, job: Job, student: Any, config: DistillationConfig) -> HeadMap:
        """Heads of the teacher and of a student as it begins, which is the same for all seeds."""
        key = "headmap", job.heads, job.layers
        if key not in self._kept:
            batch = completed(self._batch(MATCHING_SIZE), config.loss.batch_keys)
            found = pair_heads(self.model, student, self.pools(job.heads), config, batch)
            self._kept[key] = found
        return self._kept[key]

    def _batch(self, n: int) -> dict[str, Tensor]:
        return Collator()([self.samples[at % len(self.samples)] for at in range(n)])

    def circuit(self, student: Any, n: int) -> tuple[tuple[Head, Head], ...]:
        """`n` heads of the teacher and of a student, paired by ablation effect.

        On the same rows for all; what the teacher's effects are is measured once for all processes.
        """
        batch = self._batch(ABLATED_SIZE)
        kept = None if self.scratch is None else self.scratch / EFFECTS
        if kept is not None and kept.is_file():
            theirs = torch.tensor(json.loads(kept.read_text()))
        else:
            theirs = ablation_effects(self.model, [batch])
            if kept is not None:
                write_text(kept, json.dumps(theirs.tolist()))
        return match_by_ablation(theirs, ablation_effects(student, [batch]), n)


def ask_teacher(setup: Setup) -> Result:
    """Its answers to all prompts."""
    started = time.monotonic()
    writer = setup.writer(setup.source)
    marks = ask(writer, dict(setup.asked))
    setup._kept.pop("writer")
    seen = marks.pop(SEEN)
    job = Job(TEACHER, "", setup.source.config.num_hidden_layers, 0, 0.0, 1.0, 0, 0)
    return {
        "job": job.to_json(),
        "finished": True,
        "seconds": {"all": round(time.monotonic() - started, 2)},
        "curve": [{"step": 0, "seconds": 0.0, **marks}],
        "seen": seen,
    }


def train_student(setup: Setup, job: Job, write: Callable[[Result], None]) -> Result:
    """Train a student and ask it on the way; `write` is given what is known after every time.

    Returns:
        job, finished, device, n_parameters, layers, headmap (pairs of heads), traces_seen, loss
        (rows), seconds (making, training, asking), and curve: step, seconds of training so far and
        `Asked.marks` of the prompts to report on; at the end also of those to select on, and of
        labels of the training (`seen`).

    Raises:
        TimeUp: before the last step.
        InputError: a loss or the gradient is no number.
    """
    times = {"making": 0.0, "training": 0.0, "asking": 0.0}
    clock = _Clock(times, setup.device)
    set_seed(job.seed)
    config, args = _settings(setup, job)
    chosen = rows_for(job.seed, len(setup.samples), job.traces)
    rows = setup.samples.of(chosen)
    student = setup.student(job.layers)
    pools = setup.pools(job.heads) if job.heads else None
    headmap = setup.headmap(job, student, config) if config.loss.taught_pools else None
    circuit = ()
    if config.loss.by_ablation and pools is not None:
        circuit = setup.circuit(student, len(pools))
    set_seed(job.seed)
    trainer = MechanisticDistillationTrainer(
        student,
        setup.model,
        config.loss,
        headmap=headmap,
        circuit=circuit,
        n_tokens=check_vocabulary(setup.model, student, setup.tokenizer),
        args=args,
        train_dataset=rows,
        data_collator=Collator(),
    )
    keep_widths(student)  # its hidden states are the teacher's to begin with
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    result: Result = {
        "job": job.to_json(),
        "finished": False,
        "device": torch.cuda.get_device_name() if setup.device.type == "cuda" else "cpu",
        "n_parameters": student.num_parameters(),
        "layers": list(setup.layers(job.layers)),
        "headmap": [
            [pair.pool, *pair.teacher, *pair.student] for pair in (headmap.pairs if headmap else ())
        ],
        "circuit": [[*pair[0], *pair[1]] for pair in circuit],
        "traces_seen": job.steps * setup.batch_size,
        "seconds": times,
        "curve": [],
    }

    def note(step: int, model: Any) -> None:
        clock.to("training" if step else "making")
        # At the end all at once: a token of many replies takes little longer than of few.
        names = tuple(setup.asked) if step == job.steps else (REPORT,)
        marks = ask(setup.writer(model), {name: setup.asked[name] for name in names})
        if SEEN in marks:
            result["seen"] = marks.pop(SEEN)
        result["curve"].append({"step": step, "seconds": round(times["training"], 2), **marks})
        clock.to("asking")
        result["loss"] = _losses(trainer)
        write(result)

    steps = sorted({max(1, round(share * job.steps)) for share in setup.evaluations} | {job.steps})
    trainer.add_callback(_Evaluation(steps, note, setup.until))
    clock.to("making")
    trainer.train()
    drop_projections(student)
    clock.to("asking")
    result["loss"] = _losses(trainer)
    if setup.device.type == "cuda":
        result["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        torch.cuda.reset_peak_memory_stats()
    if setup.keep is not None and job.seed == setup.kept_seed:
        folder = setup.keep / job.name
        student.to(torch.bfloat16).save_pretrained(folder)
        setup.tokenizer.save_pretrained(folder)
    result["finished"] = True
    write(result)
    return result


def _losses(trainer: Any) -> list[dict[str, float]]:
    """Step, loss and every term, where the Trainer logged them."""
    return [
        {name: round(value, 5) for name, value in row.items() if name.startswith(("loss", "step"))}
        for row in trainer.state.log_history
        if "loss" in row
    ]


def _settings(setup: Setup, job: Job) -> tuple[DistillationConfig, Any]:
    """Configuration and the Trainer's arguments of a student."""
    mapped = tuple(enumerate(setup.layers(job.layers)))
    parts = max(setup.accumulation, ACCUMULATION.get(job.arm, 1))
    parts = parts if setup.batch_size % parts == 0 else 1
    config = DistillationConfig(
        loss=replace(job.loss, layers=mapped),
        student=CopiedLayers(layers=job.layers),
        steps=job.steps,
        batch_size=setup.batch_size // parts,
        accumulation=parts,
        context=setup.source.config.max_position_embeddings,
        learning_rate=job.rate,
        warmup_steps=round(setup.warmup * job.steps),
        bf16=setup.device.type == "cuda",
        seed=job.seed,
    )
    further = {
        "save_strategy": "no",
        "logging_steps": max(1, job.steps // 10),
        "dataloader_drop_last": True,
        "disable_tqdm": True,
    }
    return config, trainer_arguments(Path("students"), config, setup.workers, 10**6, further)


class _Clock:
    """Adds the time since it was last asked to a part."""

    def __init__(self, times: dict[str, float], device: torch.device) -> None:
        self._times, self._on_gpu, self._at = times, device.type == "cuda", time.monotonic()

    def to(self, part: str) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()
        now = time.monotonic()
        self._times[part] = round(self._times[part] + now - self._at, 3)
        self._at = now


class TimeUp(Exception):
    """There is no time left for this student."""


class _Evaluation(TrainerCallback):
    """Asks the student after some steps, and ends its training when time is up."""

    def __init__(
        self, steps: Sequence[int], note: Callable[[int, Any], None], until: float
    ) -> None:
        self._steps, self._note, self._until = set(steps), note, until

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if time.time() > self._until:
            raise TimeUp
        if state.global_step in self._steps:
            self._note(state.global_step, kwargs["model"])
