"""What large label sets cost: index, next-token sets, constrained decoding, nearest labels.

Texts are synthetic titles, so that anyone can repeat the figures. Peak memory is the kernel's
high-water mark of this process, reset before each part where the system allows that.
"""

import re
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from workbench.labels.index import LabelIndex

PARTS = ("index", "decoding", "neighbours", "clusters")
SYLLABLES = re.findall("..", "bacadaelfagahiinjokalamonaorpequrasitaunvewixayozu")
PREFIXES = 2000


def bench_labels(
    n: int = 1_000_000,
    parts: tuple[str, ...] = PARTS,
    *,
    seed: int = 0,
    generations: int = 10_000,
    batch_size: int = 16,
    sample: int = 2000,
    n_threads: int = 2,
) -> dict[str, Any]:
    """Seconds, peak MB and correctness of each part, on `n` synthetic titles.

    Decoding needs the bundled model; its `generations` labels are all checked against the set. The
    neighbours of `sample` labels are compared with brute force.
    """
    texts = synthetic_titles(n, seed)
    results: dict[str, Any] = {"n": n, "mean_characters": statistics.fmean(map(len, texts))}
    if "index" in parts or "decoding" in parts:
        index, results["index"] = _index(texts, seed)
        if "decoding" in parts:
            results["decoding"] = _decoding(index, texts, generations, batch_size, seed)
    if "neighbours" in parts:
        results["neighbours"] = _neighbours(texts, sample, n_threads, seed)
    if "clusters" in parts:
        results["clusters"] = _clusters(texts, seed)
    return results


def synthetic_titles(n: int, seed: int = 0, n_words: int = 200_000) -> list[str]:
    """`n` distinct titles of one to eight words, whose frequencies follow Zipf's law."""
    rng = np.random.default_rng(seed)
    made = {
        "".join(SYLLABLES[i] for i in row)
        for row in (
            rng.integers(len(SYLLABLES), size=size) for size in rng.integers(1, 6, 2 * n_words)
        )
    }
    # Frequent words are short.
    length = np.array([len(word) for word in sorted(made)]) * rng.uniform(0.5, 1, len(made))
    words = np.array(sorted(made))[np.argsort(length)][:n_words]
    share = 1 / (np.arange(len(words)) + 2.7)
    edges = np.cumsum(share / share.sum())
    titles: dict[str, None] = {}
    while len(titles) < n:
        counts = rng.choice(
            np.arange(1, 9), 50_000, p=(0.06, 0.3, 0.28, 0.17, 0.1, 0.05, 0.03, 0.01)
        )
        drawn = words[edges.searchsorted(rng.random(int(counts.sum())))].tolist()
        ends = np.cumsum(counts).tolist()
        starts = [0, *ends[:-1]]
        titles.update(
            (" ".join(drawn[low:high]).capitalize(), None)
            for low, high in zip(starts, ends, strict=True)
        )
    return list(titles)[:n]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    # `inputs` knows this path too, but loads torch, which would count as the index's memory.
    folder = Path(__file__).resolve().parents[2] / "data" / "organism"
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _index(texts: list[str], seed: int) -> tuple[LabelIndex, dict[str, Any]]:
    tokenizer = _tokenizer()
    index, cost = _measured(lambda: LabelIndex.build(texts, tokenizer, end=0))
    rng = np.random.default_rng(seed)
    index.find([int(index.tokens[0])])  # makes the keys
    micros = []
    for number in rng.integers(len(texts), size=PREFIXES).tolist():
        tokens = index.label_tokens(number).tolist()
        prefix = tokens[: int(rng.integers(len(tokens)))]
        start = time.perf_counter()
        index.next_tokens(prefix)
        micros.append(1e6 * (time.perf_counter() - start))
    return index, {
        **cost,
        "mean_tokens": len(index.tokens) / len(index),
        "next_tokens_median_us": statistics.median(micros),
        "next_tokens_p99_us": float(np.percentile(micros, 99)),
    }


def _decoding(
    index: LabelIndex, texts: list[str], generations: int, batch_size: int, seed: int
) -> dict[str, Any]:
    import torch

    from workbench.analysis.label_space.constrained import LabelConstraint, generate_labels
    from workbench.models.loading import bundled_model_path, read_model

    tokenizer = _tokenizer()
    model = read_model(bundled_model_path(), dtype=torch.float32)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    width = 32
    prompts = rng.integers(1, model.config.vocab_size, (generations, width)).tolist()
    timer = _Timer(LabelConstraint)
    steps: list[float] = []

    def before(*_: Any) -> None:
        steps.append(-time.perf_counter())

    def after(*_: Any) -> None:
        steps[-1] += time.perf_counter()

    hooks = [model.register_forward_pre_hook(before), model.register_forward_hook(after)]
    start = time.perf_counter()
    with timer:
        found = generate_labels(model, prompts, index, batch_size=batch_size, do_sample=True)
    seconds = time.perf_counter() - start
    for hook in hooks:
        hook.remove()
    rest = seconds - timer.seconds

    def spelled(number: int) -> str:
        return tokenizer.decode(index.label_tokens(number)[:-1].tolist())

    return {
        "generations": generations,
        "in_set": sum(len(row) == 1 and spelled(row[0]) == texts[row[0]] for row in found),
        "distinct": len({row[0] for row in found if row}),
        "seconds": seconds,
        "step_ms": 1e3 * rest / len(steps),
        "forward_ms": 1e3 * statistics.median(steps),
        "constraint_ms": 1e3 * timer.seconds / len(steps),
        "added": timer.seconds / rest,
    }


class _Timer:
    """Adds up the time of a class's calls while it is entered."""

    def __init__(self, timed: type) -> None:
        self.timed = timed
        self.call = timed.__call__
        self.seconds = 0.0

    def __enter__(self) -> None:
        def call(constraint: Any, *args: Any) -> Any:
            start = time.perf_counter()
            scores = self.call(constraint, *args)
            self.seconds += time.perf_counter() - start
            return scores

        self.timed.__call__ = call

    def __exit__(self, *_: object) -> None:
        self.timed.__call__ = self.call


def _neighbours(texts: list[str], sample: int, n_threads: int, seed: int) -> dict[str, Any]:
    from workbench.labels.neighbours import Neighbours, sparse_neighbours, tfidf_vectors

    def make() -> tuple[Any, Neighbours, float]:
        start = time.perf_counter()
        vectors = tfidf_vectors(texts)
        seconds = time.perf_counter() - start
        return vectors, sparse_neighbours(vectors, 10, n_threads=n_threads), seconds

    (vectors, found, vector_seconds), cost = _measured(make)
    return {
        **cost,
        "vector_seconds": vector_seconds,
        "features": vectors.shape[1],
        "without_neighbour": int((found.labels[:, 0] < 0).sum()),
        "sample": sample,
        "recall": recall(vectors, found, sample, seed),
    }


def recall(vectors: Any, found: Any, sample: int, seed: int = 0) -> float:
    """Share of the nearest labels by brute force, on the same vectors, that were found.

    A label counts as found when its similarity is among those found: ties may be broken either way.
    """
    rows = np.random.default_rng(seed).choice(
        vectors.shape[0], min(sample, vectors.shape[0]), replace=False
    )
    k = found.labels.shape[1]
    right = wanted = 0
    for start in range(0, len(rows), 100):
        part = rows[start : start + 100]
        exact = (vectors[part] @ vectors.T).toarray()
        exact[np.arange(len(part)), part] = 0
        best = -np.sort(-np.partition(exact, -k, axis=1)[:, -k:], axis=1)
        real = np.take_along_axis(exact, np.maximum(found.labels[part], 0), axis=1)
        real[found.labels[part] < 0] = 0
        right += int(((best > 0) & (real >= best - 1e-5)).sum())
        wanted += int((best > 0).sum())
    return right / max(wanted, 1)


def _clusters(texts: list[str], seed: int) -> dict[str, Any]:
    from tempfile import TemporaryDirectory

    from workbench.labels.neighbours import cluster_labels

    with TemporaryDirectory() as folder:
        clusters, cost = _measured(lambda: cluster_labels(texts, seed=seed, cache_dir=Path(folder)))
    sizes = np.bincount(clusters)
    return {**cost, "clusters": len(sizes), "sizes": [int(sizes.min()), int(sizes.max())]}


def _measured(make: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `make` returns, and its seconds, MB held before it and peak MB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _memory_mb("VmRSS")
    start = time.perf_counter()
    made = make()
    seconds = time.perf_counter() - start
    return made, {"seconds": seconds, "before_mb": before, "peak_mb": _memory_mb("VmHWM")}


def _memory_mb(name: str) -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return float("nan")
