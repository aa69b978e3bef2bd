"""What predictions of a whole split cost: the engine of `predict` against plain loops.

The engine gets documents with their shortlists and gives tables, as in `predict`: questions are
made and cut, put together by length, and scored. The loops are what is usually written by hand:
questions that are ready as texts are tokenized and run one by one, or several at a time padded on
the left, and logits are read at the last token. All use one model in memory, in one run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # comes with accelerate
import torch
from jaxtyping import Float

from workbench.bench.patching import device_name
from workbench.bench.shapes import check_shape, random_model
from workbench.errors import InputError
from workbench.labels.folders import open_corpus
from workbench.models import loading
from workbench.predicting.blocks import BLOCK, Block, count_blocks, iter_blocks
from workbench.predicting.config import PredictionConfig
from workbench.predicting.model import PlainModel, load_plain
from workbench.predicting.reranking import Reranker, in_order, kept
from workbench.predicting.scoring import OptionScorer
from workbench.predicting.shortlists import count_documents, given_shortlist
from workbench.progress import Reporter
from workbench.prompts.choices import check_task
from workbench.prompts.forms.asking import Asker, Question
from workbench.prompts.forms.form import open_form
from workbench.runs.manifest import versions

BATCHES = (1, 8)
"""Questions of a forward, of the plain loops."""
PART = 1000
"""Documents after which memory is recorded."""
SCHEMA = "workbench.bench-predict/1"


def bench_predict(
    task: str,
    model: str | Path,
    shortlist_file: str | Path,
    config: PredictionConfig,
    *,
    shape: str | None = None,
    loop_documents: int = 1000,
    form: str | Path | None = None,
    dtype: str = "float32",
    device: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Documents a second and peak memory of the engine and of plain loops; JSON-ready.

    Args:
        task: `xmc:FOLDER` or `mimic4:FOLDER`.
        model: gives weights and tokenizer.
        shortlist_file: labels that are retrieved for the documents.
        config: split, documents, candidates, and how questions are asked.
        shape: random weights of that shape in place of the model's, which gives the tokenizer.
        loop_documents: of the first documents, so many go through the loops.
        form: how documents are asked about; the task's own otherwise.
        dtype: of the weights.
        device: an accelerator if there is one.
        reporter: shows what is done.

    Raises:
        InputError: what the task, the model, the form or the shortlist refuse, a model that
            reasons, or a shape with a smaller vocabulary than the tokenizer's.
    """
    reporter = reporter or Reporter()
    if config.reason:
        raise InputError("what chains cost depends on the model's own; measure without reasons")
    if not check_task(task).takes_folder:
        raise InputError(f"task {task!r} is of no documents; give xmc:FOLDER or mimic4:FOLDER")
    corpus = open_corpus(task)
    n = count_documents(corpus, config)
    table = given_shortlist(Path(shortlist_file), corpus, config.split, n)
    plain = _load(model, shape, dtype, device, reporter)
    longest = min(config.max_tokens or plain.context or 4096, plain.context or 4096)
    asker = _Clock(open_form(form, task), plain.tokenizer, way=config.way, max_tokens=longest)

    def blocks() -> Iterator[Block]:
        return iter_blocks(corpus, config.split, table, range(count_blocks(n)))

    scorer = OptionScorer(plain)
    if config.batch_tokens:
        scorer.budget.tokens = config.batch_tokens
    engine, scores = _engine(blocks, n, asker, corpus.label_texts, scorer, config, reporter)
    some = _asked(blocks(), asker, corpus.label_texts, config)
    questions = list(islice(some, loop_documents))
    if not questions:
        raise InputError(f"{shortlist_file}: no document has a candidate")
    loops = [_loop(plain, questions, scores, size, reporter) for size in BATCHES]
    for loop in loops:
        loop["ratio"] = engine["documents_a_second"] / loop["documents_a_second"]
    return {
        "schema": SCHEMA,
        "model": {"name": plain.name, "shape": shape, "dtype": str(plain.dtype)[6:]},
        "device": device_name(plain.device),
        "threads": torch.get_num_threads() if plain.device.type == "cpu" else None,
        "versions": versions(),
        "documents": {"task": corpus.name, "split": config.split, "candidates": config.candidates},
        "max_tokens": longest,
        "engine": engine,
        "loops": loops,
    }


def _load(
    model: str | Path, shape: str | None, dtype: str, device: str | None, reporter: Reporter
) -> PlainModel:
    if shape is None:
        return load_plain(model, dtype=dtype, device=device, reporter=reporter)
    check_shape(shape)
    folder = loading.model_folder(model)
    tokenizer = loading.read_tokenizer(folder)
    if tokenizer is None:
        raise InputError(f"model {model} has no tokenizer to ask with")
    hf = random_model(shape, dtype, device)
    if len(tokenizer) > hf.config.vocab_size:
        raise InputError(
            f"shape {shape} has {hf.config.vocab_size} tokens, the tokenizer of {model} "
            f"{len(tokenizer)}; give another model's"
        )
    hf.set_attn_implementation("sdpa")
    return PlainModel(hf, tokenizer, folder, f"random {shape}", None, "")


class _Clock(Asker):
    """Knows how long it took to ask, and how many tokens that were."""

    seconds, tokens, longest = 0.0, 0, 0

    def ask_many(self, *given: Any, **named: Any) -> list[Question]:
        """See `Asker`."""
        start = time.perf_counter()
        asked = super().ask_many(*given, **named)
        self.seconds += time.perf_counter() - start
        lengths = [len(question.tokens) for question in asked]
        self.tokens += sum(lengths)
        self.longest = max([self.longest, *lengths])
        return asked


def _engine(
    blocks: Callable[[], Iterator[Block]],
    total: int,
    asker: _Clock,
    texts: Sequence[str],
    scorer: OptionScorer,
    config: PredictionConfig,
    reporter: Reporter,
) -> tuple[dict[str, Any], list[dict[int, float]]]:
    """What the engine costs, and the scores of every document's candidates by label."""
    device = scorer.model.device
    reranker = Reranker(scorer.model, asker, texts, config, scorer)
    reranker.table(next(blocks()))  # the first forwards of a model are slow
    asker.seconds, asker.tokens, asker.longest = 0.0, 0, 0
    scores: list[dict[int, float]] = []
    memory = _Memory(device)
    rows: list[dict[str, float | int | None]] = []
    started = time.perf_counter()
    with reporter.step("engine", total, "documents") as advance:
        for block in blocks():
            table = reranker.table(block)
            for labels, found, n in zip(
                table["labels"], table["scores"], table["candidates"], strict=True
            ):
                scores.append(dict(zip(labels[:n].tolist(), found[:n].tolist(), strict=True)))
            memory.look()
            advance(len(scores), total)
            if len(scores) // PART > len(rows) or len(scores) == total:
                rows.append({"documents": len(scores), **memory.peak()})
    seconds = time.perf_counter() - started
    return {
        **_pace(total, seconds, asker.tokens),
        "asking_seconds": asker.seconds,
        "tokens": {"mean": asker.tokens / max(1, total), "longest": asker.longest},
        "batch_tokens": scorer.budget.tokens,
        "memory": rows,
    }, scores


def _asked(
    blocks: Iterator[Block], asker: Asker, texts: Sequence[str], config: PredictionConfig
) -> Iterator[tuple[int, list[int], Question]]:
    """Number, candidates and question of every document that has candidates."""
    for block in blocks:
        for place, (document, found) in enumerate(
            zip(block.documents, block.retrieved, strict=True)
        ):
            shown = in_order(kept(document, found)[: config.candidates], document.id, config)
            if shown:
                question = asker.ask(document.full_text, [texts[label] for label in shown])
                yield block.number * BLOCK + place, shown, question


def _loop(
    plain: PlainModel,
    asked: Sequence[tuple[int, list[int], Question]],
    scores: Sequence[dict[int, float]],
    size: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """What a loop with `size` questions a forward costs, and how far its scores are off."""
    tokenizer: Any = plain.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokens = 0

    @torch.no_grad()
    def run(part: Sequence[tuple[int, list[int], Question]]) -> list[Float[np.ndarray, " option"]]:
        nonlocal tokens
        texts = [question.text for _, _, question in part]
        given = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        given = given.to(plain.device)
        tokens += int(given["attention_mask"].sum())
        logits = plain.hf(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"]
        ).logits[:, -1]
        log_p = logits.float().log_softmax(-1).cpu().numpy()
        # Of a name of several tokens the first is read, as loops do.
        return [
            row[[name[0] for name in question.option_tokens]]
            for row, (_, _, question) in zip(log_p, part, strict=True)
        ]

    run(asked[:size])
    tokens = 0
    memory = _Memory(plain.device)
    found: list[Float[np.ndarray, " option"]] = []
    started = time.perf_counter()
    with reporter.step(f"loop, {size} at a time", len(asked), "documents") as advance:
        for start in range(0, len(asked), size):
            found += run(asked[start : start + size])
            memory.look()
            advance(len(found), len(asked))
    seconds = time.perf_counter() - started
    off, same = _compared(asked, found, scores)
    return {
        "batch": size,
        **_pace(len(asked), seconds, tokens),
        **memory.peak(),
        "largest_difference": off,
        "same_best": same,
    }


def _compared(
    asked: Sequence[tuple[int, list[int], Question]],
    found: Sequence[Float[np.ndarray, " option"]],
    scores: Sequence[dict[int, float]],
) -> tuple[float | None, float | None]:
    """Largest difference of log-probabilities, and share of documents with the same best label.

    Only where names are one token: a loop reads no others.
    """
    if any(len(name) > 1 for _, _, question in asked for name in question.option_tokens):
        return None, None
    off, same = 0.0, 0
    for (number, shown, _), row in zip(asked, found, strict=True):
        engine = np.array([scores[number][label] for label in shown])
        off = max(off, float(np.abs(engine - row).max()))
        same += int(engine.argmax() == row.argmax())
    return off, same / len(asked)


def _pace(documents: int, seconds: float, tokens: int) -> dict[str, float | int]:
    return {
        "documents": documents,
        "seconds": seconds,
        "documents_a_second": documents / seconds,
        "tokens_a_second": tokens / seconds,
    }


@dataclass
class _Memory:
    """Most memory since it was last asked: of the process when looked at, of the accelerator."""

    device: torch.device
    _most: int = 0

    def __post_init__(self) -> None:
        self.peak()

    def look(self) -> None:
        """The process holds so much at this moment."""
        self._most = max(self._most, psutil.Process().memory_info().rss)

    def peak(self) -> dict[str, float | None]:
        """MiB, and begin anew."""
        self.look()
        found: dict[str, float | None] = {"process_mib": self._most / 2**20, "device_mib": None}
        self._most = 0
        if self.device.type == "cuda":
            found["device_mib"] = torch.cuda.max_memory_allocated(self.device) / 2**20
            torch.cuda.reset_peak_memory_stats(self.device)
        return found
