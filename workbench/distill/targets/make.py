"""Running a teacher once over all examples, and keeping what terms will ask of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from filelock import FileLock
from safetensors import safe_open
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from workbench.distill.config import plain
from workbench.distill.given import KEPT_TEACHER
from workbench.distill.losses.divergence import cka
from workbench.distill.losses.term import TERMS
from workbench.distill.reading.positions import Marks
from workbench.distill.targets.packing import Packing
from workbench.distill.targets.requests import Noted, Request, there
from workbench.distill.targets.store import LOST, Manifest, block_path, sample_key, write_block
from workbench.errors import InputError
from workbench.files import read_text, write_text
from workbench.models import loading
from workbench.progress import Reporter

if TYPE_CHECKING:
    from workbench.distill.training.trainer import MechanisticDistillationTrainer

PROBED = 8
"""Examples on which the terms are asked what they want of the teacher."""
LARGE = {"d_model": 8192, "d_vocab": 128_256, "head": 64}
"""Sizes of a teacher of 70 billion parameters, by the names of axes."""
SIZED = 256
"""Examples of which sizes are taken, to say how large all will be."""


@dataclass(frozen=True)
class Making:
    """How targets are made.

    Attributes:
        folder: where.
        packing: how they are kept; `n_tokens` and `temperature` follow from the terms.
        part: which of how many parts of the blocks this process makes.
        block: examples of a block.
        dry: only say how large they will be.
    """

    folder: Path
    packing: Packing
    part: tuple[int, int] = (0, 1)
    block: int = 256
    dry: bool = False


def make_targets(
    trainer: "MechanisticDistillationTrainer",
    examples: Any,
    making: Making,
    *,
    teacher: str,
    pools: list[Any],
    heads: str,
    pairing: Mapping[str, Any],
    source: Path | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Fill a folder, or this process's part of it, with what the trainer's terms ask its teacher.

    Goes on where it stopped. Says beforehand how large the targets will be, and afterwards what
    share was cut off.

    Args:
        trainer: with teacher, student and terms; nothing is trained.
        examples: samples, by number.
        making: where and how.
        teacher: hash of the teacher's weights.
        pools: its pooled heads, listed.
        heads: which of its heads teach, those or others.
        pairing: what else decided which heads were paired (`pair.paired_by`).
        source: the teacher's folder, of which all but weights is kept beside the targets.
        reporter: where progress is told.

    Returns:
        "examples", "bytes" (expected of all), "bytes_of_70b" (if the teacher were as wide as one of
        70 billion parameters), and if not `making.dry` "blocks" (made so far, of all) and "lost",
        the mean share that is cut off, by request.

    Raises:
        InputError: the folder holds targets of other settings, or no term reads the teacher.
    """
    config = trainer.terms.config
    if not config.needs_teacher:
        raise InputError(f"loss terms {', '.join(config.on)} ask nothing of the teacher")
    at, digest = _distinct(examples, reporter)
    packing = replace(
        making.packing, temperature=config.logit_temperature, n_tokens=trainer.n_tokens
    )
    first = [examples[i] for i in list(at.values())[:PROBED]]
    requests, terms, kept = probe(trainer, first, packing)
    manifest = Manifest(
        teacher=teacher,
        pools=pools,
        heads=heads,
        pairing=pairing,
        loss=plain(asdict(config)),
        examples={"n": len(at), "sha256": digest},
        block=making.block,
        packing=packing,
        looks=tuple(sorted(trainer.terms.wanted["student"].looks)),
        keys=tuple(sorted({key for keys in config.batch_keys.values() for key in keys})),
        requests=requests,
        terms=terms,
        headmap=trainer.headmap,
        circuit=tuple(trainer.circuit),
    )
    some = list(at.values())
    step = max(1, len(some) // SIZED)
    measured = [examples[i] for i in some[::step][:SIZED]]
    sizes = sizes_of(trainer, measured, requests, packing)
    whole = sum(sizes) * len(at)
    for line in describe(requests, sizes, packing, len(at), kept):
        reporter.say(line)
    large = sum(sizes_of(trainer, measured, [request.like(LARGE) for request in requests], packing))
    reporter.say(
        f"  of a teacher of 70B (width {LARGE['d_model']:,}) with as many groups of heads: "
        f"{human(large)} an example"
    )
    record: dict[str, Any] = {"examples": len(at), "bytes": round(whole)}
    record |= {"bytes_of_70b": round(large * len(at))}
    if making.dry:
        return record
    manifest.write(making.folder)
    _keep_teacher(trainer, making.folder / KEPT_TEACHER, source)
    keys, size, world = list(at), making.block, trainer.args.world_size
    which, parts = making.part
    paths = {i: block_path(making.folder, i) for i in range(which, manifest.n_blocks, parts)}
    missing = [i for i, path in paths.items() if not path.is_file()]
    trainer.accelerator.wait_for_everyone()  # all know the same, before any is written
    # Processes over which a teacher is spread run it equally often.
    own = missing[trainer.args.process_index :: world]
    runs = own + missing[: -(-len(missing) // world) - len(own)]
    of_block = {i: keys[i * size : (i + 1) * size] for i in runs}
    total = sum(len(of_block[i]) for i in runs)
    done = 0
    with reporter.step("targets", total, "examples") as advance:
        for number, i in enumerate(runs):
            block = _block(
                trainer,
                {key: examples[at[key]] for key in of_block[i]},
                manifest,
                lambda n, done=done: advance(done + n, total),
            )
            done += len(of_block[i])
            if number < len(own):
                write_block(paths[i], *block)
    trainer.accelerator.wait_for_everyone()
    return record | _summary(making.folder, manifest, reporter)


def probe(
    trainer: "MechanisticDistillationTrainer",
    samples: Sequence[Mapping[str, Any]],
    packing: Packing,
) -> tuple[tuple[Request, ...], dict[str, list[int]], float | None]:
    """What the terms ask of the teacher, by running both models once.

    Returns:
        requests; their numbers by term; and the least CKA between what heads write and what is
        kept of it, None where it is kept whole.
    """
    config, batch = trainer.terms.config, trainer.collated(samples)
    marks = Marks.of(batch, config.rows)
    noted: dict[str, dict[Any, Request]] = {}
    least: list[float] = []
    with torch.no_grad(), trainer.compute_loss_context_manager():
        theirs, ours = trainer.read_teacher(batch), trainer.read_student(trainer.model, batch)
        unembedding = trainer.unembedding
        for name in config.on:
            if TERMS[name].runs_teacher(config):
                asked = Noted(theirs, marks, unembedding)
                trainer.terms.of(name, batch, asked.reading, ours)
                noted[name] = asked.requests
        requests = {key: request for each in noted.values() for key, request in each.items()}
        for request in requests.values():
            if packing.how(request) == "writes" and request.sizes[-1] > packing.width:
                answer = request.put(theirs, marks, unembedding)
                parts, *_ = packing.pack(request, answer, marks)
                found = answer[there(request, marks)]
                all_of_them = torch.ones(len(found), dtype=torch.bool, device=found.device)
                least.append(float(cka(found, parts["value"].float(), all_of_them, False)))
    numbers = {key: i for i, key in enumerate(requests)}
    terms = {name: [numbers[key] for key in each] for name, each in noted.items()}
    return tuple(requests.values()), terms, min(least, default=None)


def sizes_of(
    trainer: "MechanisticDistillationTrainer",
    samples: Sequence[Mapping[str, Any]],
    requests: Sequence[Request],
    packing: Packing,
) -> list[float]:
    """Bytes that each request takes of an example, on average."""
    total = [0] * len(requests)
    for sample in samples:
        marks = Marks.of(trainer.collated([sample], here=True), trainer.terms.config.rows)
        for i, request in enumerate(requests):
            total[i] += packing.bytes_of(request, marks)
    return [each / len(samples) for each in total]


def describe(
    requests: Sequence[Request],
    sizes: Sequence[float],
    packing: Packing,
    n: int,
    kept: float | None = None,
) -> Iterator[str]:
    """Lines that say what is kept, and how large it is."""
    by_name: dict[tuple[str, str], list[float]] = {}
    for request, size in zip(requests, sizes, strict=True):
        by_name.setdefault((request.name, packing.says(request)), []).append(size)
    for (name, how), each in by_name.items():
        yield f"  {name} × {len(each)}: {how}; {human(sum(each))} an example"
    whole = sum(sizes)
    yield f"targets: {human(whole)} an example, {human(whole * n)} for {n:,} examples"
    if kept is not None:
        yield f"  CKA of what heads write with what is kept of it: {kept:.4f} or more"


def human(size: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def _keep_teacher(
    trainer: "MechanisticDistillationTrainer", folder: Path, source: Path | None
) -> None:
    """Configuration, tokenizer, and what the teacher was trained on; once, by whoever is first."""
    with FileLock(folder.parent / ".lock"):
        if (folder / "config.json").is_file():
            return
        tokenizer = None if source is None else loading.read_tokenizer(source)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        record = None if source is None else source / "training.json"
        if record is not None and record.is_file():
            write_text(folder / record.name, read_text(record))
        trainer.taught.config.save_pretrained(folder)


def _distinct(examples: Any, reporter: Reporter) -> tuple[dict[bytes, int], str]:
    """Each example once: its key and first number; and the hash of all keys."""
    found: dict[bytes, int] = {}
    n = len(cast(Sized, examples))
    with reporter.step("examples", n) as advance:
        for i in range(n):
            found.setdefault(sample_key(examples[i]), i)
            advance(i + 1, n)
    return found, sha256(b"".join(found)).hexdigest()


def _block(
    trainer: "MechanisticDistillationTrainer",
    samples: Mapping[bytes, Mapping[str, Any]],
    manifest: Manifest,
    progress: Callable[[int], None],
) -> tuple[list[bytes], dict[str, Tensor], dict[int, Tensor]]:
    """Keys, parts and counts of a block, whose examples are sorted by length."""
    keys = sorted(samples, key=lambda key: len(samples[key].get("ids", ())))
    parts: dict[str, list[Tensor]] = {}
    counts: dict[int, list[Tensor]] = {}
    size = trainer.args.train_batch_size
    for start in range(0, len(keys), size):
        batch = trainer.collated([samples[key] for key in keys[start : start + size]])
        marks = Marks.of(batch, manifest.loss["rows"])
        with torch.no_grad(), trainer.compute_loss_context_manager():
            reading = trainer.read_teacher(batch)
            unembedding = trainer.unembedding
            for i, request in enumerate(manifest.requests):
                answer = request.put(reading, marks, unembedding)
                packed, each, lost = manifest.packing.pack(request, answer, marks)
                packed[LOST] = torch.tensor([lost], dtype=torch.float64)
                counts.setdefault(i, []).append(each.cpu())
                for name, part in packed.items():
                    parts.setdefault(f"{i}/{name}", []).append(part.cpu())
        progress(min(start + size, manifest.block))
    if isinstance(trainer.taught, FSDPModule):  # as often as with a whole block
        first = trainer.collated([samples[key] for key in keys[:1]])
        for _ in range(-(-len(keys) // size), -(-manifest.block // size)):
            trainer.read_teacher(first)
    whole = {name: torch.cat(each) for name, each in parts.items()}
    return keys, whole, {i: torch.cat(each) for i, each in counts.items()}


def _summary(folder: Path, manifest: Manifest, reporter: Reporter) -> dict[str, Any]:
    """What is there, and what share was cut off."""
    blocks = [n for n in range(manifest.n_blocks) if block_path(folder, n).is_file()]
    lost, entries = [0.0] * len(manifest.requests), [0] * len(manifest.requests)
    for number in blocks:
        with safe_open(block_path(folder, number), framework="pt") as file:
            for i in range(len(manifest.requests)):
                lost[i] += float(file.get_tensor(f"{i}/{LOST}").sum())
                entries[i] += int(file.get_slice(f"{i}/at")[-1:])
    shares = {
        f"{request.name} {i}": lost[i] / max(1, entries[i])
        for i, request in enumerate(manifest.requests)
        if manifest.packing.how(request) in ("rows", "logits")
    }
    size = sum(block_path(folder, number).stat().st_size for number in blocks)
    reporter.say(
        f"targets: {len(blocks)} of {manifest.n_blocks} blocks in {folder}, {human(float(size))}"
    )
    for kind in ("rows", "logits"):
        of_kind = [
            shares[f"{request.name} {i}"]
            for i, request in enumerate(manifest.requests)
            if manifest.packing.how(request) == kind
        ]
        if of_kind:
            what = "attention" if kind == "rows" else "the next token's probability"
            reporter.say(
                f"  left out of {what}: {sum(of_kind) / len(of_kind):.2%} on average, "
                f"{max(of_kind):.2%} where most"
            )
    return {"blocks": [len(blocks), manifest.n_blocks], "lost": shares}
