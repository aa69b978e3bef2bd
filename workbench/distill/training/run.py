"""From a teacher and its pools to a student's folder.

1. The teacher writes chains of thought; right ones are kept (`traces.jsonl`).
2. The student is made or loaded, and its heads are matched with the teacher's (`headmap.json`).
3. It is trained, with readouts on the way (`readout.parquet`), and written as a model folder with
   its record (`training.json`).

What was begun goes on where it stopped; other settings are refused.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, set_seed
from transformers.integrations import (  # moved in later releases, and still found here
    is_fsdp_enabled,  # pyright: ignore[reportPrivateImportUsage]
)

from workbench.distill.config import DEFAULTS, DistillationConfig, plain
from workbench.distill.examples.own import own_examples, samples_sha256
from workbench.distill.examples.stream import Collator, DistillationStream
from workbench.distill.examples.traces import (
    TraceConfig,
    check_tokens,
    count_draws,
    fingerprint,
    read_traces,
    write_traces,
)
from workbench.distill.given import KEPT_TEACHER, check_new
from workbench.distill.matching.head_map import Pools, check_pools, listed
from workbench.distill.matching.pair import pair_by_ablation, paired_by
from workbench.distill.reading.parts import attention_modules, shape_of
from workbench.distill.targets.make import Making, make_targets
from workbench.distill.targets.store import Targets
from workbench.distill.training.arguments import reporting, trainer_arguments
from workbench.distill.training.copied import check_teacher, compared, of_teacher
from workbench.distill.training.folder import (
    KIND,
    READOUT,
    TAUGHT,
    TRACES,
    WORK,
    claim_folder,
    held,
    last_checkpoint,
    write_student,
)
from workbench.distill.training.heads import Examples, check_heads, first_batch, matched_heads
from workbench.distill.training.loss_table import LossTable
from workbench.distill.training.monitor import Monitor
from workbench.distill.training.sharding import fuse_attention
from workbench.distill.training.sources import Sources
from workbench.distill.training.student import (
    check_folders,
    check_vocabulary,
    make_student,
    with_adapter,
    word_encoder,
)
from workbench.distill.training.terms import drop_projections, keep_widths
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.errors import InputError
from workbench.files import claim
from workbench.models import loading
from workbench.models.sharded import read_sharded
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.prompts.task import Task
from workbench.prompts.trained import training_of

TRIED = 256
"""Examples of a stream that are looked up in targets before training."""


def distill(
    out: str | Path,
    teacher: str | Path,
    pools: Pools | None,
    config: DistillationConfig = DEFAULTS,
    *,
    task: Task | None = None,
    examples: Sequence[Mapping[str, Any]] | None = None,
    prompts: PromptSet | None = None,
    scores: pd.DataFrame | None = None,
    traces: Path | None = None,
    readout_every: int = 200,
    checkpoint_every: int = 500,
    workers: int = 2,
    arguments: Mapping[str, Any] | None = None,
    teacher_device_map: Any = None,
    teacher_sharded: bool = False,
    targets: Path | None = None,
    making: Making | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Train a student and write its folder; continues from the last checkpoint in `out`.

    In several processes the first makes what all of them read, and the others wait: let one process
    make the traces beforehand if that takes long.

    Args:
        out: the student's folder.
        teacher: model folder or hub id; it runs in bfloat16 on an accelerator, else in float32.
        pools: the teacher's pooled heads; None where no term needs them.
        config: everything that decides the result.
        task: what training prompts are drawn from, with ranges of sizes.
        examples: one's own samples, of `examples_from_chats` with the teacher's tokenizer, instead
            of a task and traces; those that are not shorter than `config.context` are left out.
        prompts: for readouts, of labels that `task` does not hold.
        scores: the run's scores table, where `config.heads` asks for control heads.
        traces: a finished trace file, or a folder with all parts of one, which students of the
            same teacher can share; unless given, traces are made in `out`.
        readout_every: steps between readouts.
        checkpoint_every: steps between checkpoints, of which the last is kept until the end.
        workers: processes that make examples.
        arguments: further `TrainingArguments`.
        teacher_device_map: "auto" spreads a teacher that is too large for one device over all of
            the machine; then train in one process.
        teacher_sharded: spread the teacher over all processes, of which none holds the whole; they
            run it together, so traces must be there.
        targets: what the teacher did on these examples, computed before (`targets.make`): it is
            not run then, and of its folder only what a student is copied from must be there.
        making: compute such targets instead of training; `out` is only worked in.
        reporter: where progress is told.

    Returns:
        what `make_targets` does, where targets are made; else the record that `training.json`
        holds: config, arguments, teacher and student (hashes of the weights that they were read
        from, None for a new student), sources (name and licence of both), layers (that were
        copied), trained_as (what the teacher says of its own training), pools, headmap, circuit,
        traces (draws, right ones, hash of these), targets (hash), seconds (since it was last
        started), device, n_parameters, n_trained, and `loss`, rows of step, loss, grad_norm and
        `loss_<term>`, every term's unweighted value.

    Raises:
        InputError: neither task nor examples, or both; the folder holds a finished student or one
            of other settings or traces; a teacher or student that cannot be read or whose
            tokenizers differ; no finished traces where some are given; what matching, the trainer
            and its arguments refuse. Where the Trainer wrote no weights; checkpoints are kept then.
    """
    if (task is None) == (examples is None) or (examples is not None and traces is not None):
        raise InputError("give a task, with or without traces, or examples")
    if teacher_sharded and examples is None and traces is None:
        raise InputError(
            "a teacher spread over processes writes no traces; make them before (workbench traces)"
        )
    out, kept = Path(out), None if targets is None else Targets(targets)
    bare = kept is not None and Path(teacher) == kept.folder / KEPT_TEACHER
    folder = Path(teacher) if bare else loading.model_folder(teacher)
    if kept is None:
        digest = loading.weights_sha256(folder)
    else:
        digest, pools = kept.manifest.teacher, kept.pools(pools, config.heads)
        check_teacher(folder, digest, config, bare=bare)
    check_new(out)
    args = trainer_arguments(out / WORK, config, workers, checkpoint_every, arguments or {})
    if args.process_index > 0:
        reporter = Reporter(Console(quiet=True))
    reporter = reporter or Reporter()
    sources = Sources.of(config, teacher, folder, digest)
    pairing = paired_by(config, sources.student and sources.student.weights_sha256)
    if kept is not None:
        kept.check_pairing(pairing)
    asked = plain(
        {
            "config": asdict(config),
            "arguments": dict(arguments or {}),
            "teacher": digest,
            "student": sources.student and sources.student.weights_sha256,
            "pools": listed(pools),
            **({} if kept is None else {"targets": kept.manifest.sha256}),
        }
    )
    if is_fsdp_enabled():  # by its name sharding alone, in fact: with this way of loading
        raise InputError(
            "fsdp_cpu_ram_efficient_loading gives weights to the first process alone, and each "
            "needs the whole teacher; set it to false"
        )
    # All that files tell, before weights are loaded, which can take minutes.
    check_folders(config, folder)
    tokenizer = loading.read_tokenizer(folder)
    encode = None if task is None else word_encoder(tokenizer, folder)
    given = None if traces is None else read_traces(traces, digest)
    dtype = torch.float32 if args.device.type == "cpu" else torch.bfloat16
    together = teacher_sharded and args.world_size > 1 and kept is None
    if kept is not None:
        taught = kept.teacher()
    elif together:
        taught = read_sharded(
            folder, lambda model: attention_modules(model)[1], dtype=dtype, device=args.device
        )
    else:
        taught = loading.read_model(folder, dtype=dtype, device_map=teacher_device_map)
        if teacher_device_map is None:
            taught.to(args.device)  # pyright: ignore[reportArgumentType]
    set_seed(config.seed)
    student = make_student(config.student, taught, tokenizer, folder)
    student.to(args.device)  # pyright: ignore[reportArgumentType]
    for model in (taught, student):
        fuse_attention(model)
    caches = getattr(student.config, "use_cache", None)
    n_tokens = check_vocabulary(taught, student, tokenizer)
    if kept is None:
        check_heads(taught, student, pools, config, scores, digest)
    if traces is not None and given is not None:
        check_tokens(traces, given, n_tokens)
    own = None if examples is None else own_examples(examples, config, n_tokens, reporter)
    first = args.process_index == 0
    with held(out) if first else nullcontext():
        with args.main_process_first(local=False, desc="claim, traces and head map"):
            claim_folder(out, asked, first=first)
            if own is None:
                assert task is not None and encode is not None
                path = traces or out / TRACES
                if given is None:
                    with reporter.step("traces", config.n_traces) as advance:
                        how = trace_config(config)
                        write_traces(
                            path, taught, task, encode, how, teacher=digest, progress=advance
                        )
                    given = read_traces(path, digest, n_tokens)
                made_of = {"drawn": count_draws(path), "kept": len(given)}
                made_of |= {"sha256": fingerprint(given)}
                n_samples = config.steps * config.batch_size * config.accumulation
                stream: Examples = DistillationStream(
                    task,
                    encode,
                    given,
                    config.mix,
                    n_samples=n_samples * args.world_size,
                    context=config.context,
                    same_size=config.batch_size,
                    seed=config.seed,
                )
            else:
                stream, made_of = own, {"drawn": len(examples or ()), "kept": len(own)}
                made_of |= {"sha256": samples_sha256(own)}
            some = own
            if some is None:  # drawing all of a stream would take as long as training reads it
                some = [stream[i] for i in range(0, len(stream), -(-len(stream) // TRIED))]
                made_of |= {"examples": samples_sha256(some)}  # the task decides them, too
            if kept is not None:
                kept.check_examples(some)
            taught_by = {"traces": made_of, "processes": args.world_size}
            claim(out, out / WORK / TAUGHT, taught_by, KIND)
            headmap = None if kept is None else kept.manifest.headmap
            if not together and kept is None:
                headmap = matched_heads(out, taught, student, pools, config, stream, scores)
        if together:
            headmap = matched_heads(out, taught, student, pools, config, stream, scores, keep=first)
        circuit = () if kept is None else kept.manifest.circuit
        if kept is None and config.loss.by_ablation and pools is not None:
            # As many pairs as the pools have heads.
            n = check_pools(pools, shape_of(taught)).total()
            circuit = pair_by_ablation(taught, student, n, [first_batch(stream, config)])
        set_seed(config.seed)
        n_parameters = student.num_parameters()
        learner = student if config.lora is None else with_adapter(student, config.lora)
        with reporting(args):
            trainer = MechanisticDistillationTrainer(
                learner,
                taught,
                compared(config, taught),
                headmap=headmap,
                circuit=circuit,
                n_tokens=n_tokens,
                targets=kept,
                args=args,
                train_dataset=stream,
                data_collator=Collator(),
            )
        if config.lora and trainer.is_sharded:
            raise InputError("lora: adapters are not trained with weights sharded over devices")
        if of_teacher(config) is not None:
            keep_widths(student)
        if making is not None:
            return make_targets(
                trainer,
                stream,
                making,
                teacher=digest,
                pools=listed(pools),
                heads=config.heads,
                pairing=pairing,
                source=folder,
                reporter=reporter,
            )
        monitor = None if prompts is None else Monitor(out / READOUT, prompts, readout_every)
        if monitor:
            trainer.add_callback(monitor)
        for theirs in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(theirs)
        table = LossTable(reporter, list(config.loss.on), monitor)
        trainer.add_callback(table)
        reporter.say(
            f"student of {n_parameters:,} parameters, {made_of['kept']:,} "
            + ("traces" if own is None else "examples")
            + ", terms "
            + ", ".join(f"{name} {weight:g}" for name, weight in config.loss.on.items())
        )
        started = time.monotonic()
        with reporting(args), table.beating():
            trainer.train(resume_from_checkpoint=last_checkpoint(out))
        drop_projections(student)
        if caches is not None:  # the Trainer turns it off, and who writes with the student wants it
            student.config.use_cache = caches
        record = {
            **asked,
            **sources.record(),
            "trained_as": training_of(folder),
            "headmap": None if headmap is None else headmap.model_dump(mode="json"),
            "circuit": plain(circuit),
            "traces": made_of,
            "seconds": round(time.monotonic() - started),
            "device": torch.cuda.get_device_name() if args.device.type == "cuda" else "cpu",
            "n_parameters": n_parameters,
            "n_trained": sum(x.numel() for x in learner.parameters() if x.requires_grad),
            "loss": _curve(trainer.state.log_history),
        }
        write_student(out, trainer, tokenizer, record, base=sources.base)
    return record


def trace_config(config: DistillationConfig, part: tuple[int, int] = (0, 1)) -> TraceConfig:
    """How the traces of a distillation, or one part of them, are drawn."""
    return TraceConfig(
        n=config.n_traces,
        seed=config.trace_seed,
        ramp=config.mix.ramp,
        same_size=config.batch_size,
        context=config.context,
        max_new_tokens=config.max_new_tokens,
        part=part,
    )


def _curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of step, loss, grad_norm and every term."""
    kept = ("step", "loss", "grad_norm")
    return [
        {name: row[name] for name in row if name in kept or name.startswith("loss_")}
        for row in history
        if "loss" in row
    ]
