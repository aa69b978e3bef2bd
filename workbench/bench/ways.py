"""The ways of patching every head that are timed against each other, on one pair of prompts.

1. `loop`: TransformerLens's own loop, one forward a head, over a sample of heads;
2. `forked`: every head of the model with `patch_heads`;
3. `plain_forward`: the Hugging Face model itself on as many tokens, with torch's fused attention;
4. `attribution`: TransformerLens's attribution patching of every head, which is an approximation.

Each time is the best of a few after one warm-up. The values to patch in are computed beforehand and
not part of any time but that of `attribution`, which computes them itself. The logits of `forked`
are compared with those of `loop` on the sampled heads.
"""

import contextlib
import io
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import pandas as pd
import torch
from accelerate.utils.memory import clear_device_cache
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.patching import generic_activation_patch, layer_pos_head_vector_patch_setter
from transformer_lens.tools.analysis.attribution_patching import cache_activation_and_gradient

from workbench.errors import first_line
from workbench.heads import Head
from workbench.models.batch_budget import START_TOKENS, START_TOKENS_ELSEWHERE
from workbench.models.forked import can_fork, patch_heads
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter

N_OPTIONS = 10
SEED = 0
TIMED_PACKS = 2
# What the libraries raise on a model they do not handle, and on too little memory.
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


@dataclass(frozen=True)
class Case:
    """Two prompts, the last positions that are patched in the first, and what every way needs."""

    model: HookedModel
    plain: Any
    """The Hugging Face model with fused attention, on the same weights."""
    devices: Sequence[torch.device]
    kind: str
    base: list[int]
    other: list[int]
    patched: int
    heads: list[Head]
    sampled: list[Head]
    options: list[int]
    """Tokens whose logits are wanted, over the whole vocabulary; the first is the metric's."""
    repeats: int

    @property
    def names(self) -> list[str]:
        """Hook names of every layer's z."""
        return [f"blocks.{layer}.attn.hook_z" for layer in range(self.model.info.n_layers)]

    @cached_property
    def source(self) -> dict[str, Tensor]:
        """The other prompt's `hook_z` by name, as the bridge caches it."""
        _, cache = self.model.bridge.run_with_cache(self.ids(self.other), names_filter=self.names)
        return {name: cache[name] for name in self.names}

    def ids(self, tokens: Sequence[int]) -> Int[Tensor, "1 position"]:
        """Tokens as the model takes them."""
        return torch.tensor([list(tokens)], device=self.model.device)

    def metric(self, logits: Float[Tensor, "1 position d_vocab"]) -> Float[Tensor, ""]:
        """The number that the libraries ask for: one option's logit at the decision."""
        return logits[0, -1, self.options[0]]

    def seconds(self, function: Callable[[], object]) -> float:
        """Best time of a few calls."""
        return min(seconds_of(function, self.devices) for _ in range(self.repeats))


def make_case(
    model: HookedModel, plain: Any, kind: str, length: int, suffix: int, sample: int, repeats: int
) -> Case:
    """Prompts, heads and options for one kind of positions."""
    shared = 0 if kind == "decision" else suffix
    base, other = random_prompts(model.info.d_vocab, length, shared)
    heads = list(itertools.product(range(model.info.n_layers), range(model.info.n_heads)))
    return Case(
        model=model,
        plain=plain,
        devices=devices_of(plain),
        kind=kind,
        base=base,
        other=other,
        patched=max(1, shared),
        heads=heads,
        sampled=spread_evenly(heads, sample),
        options=spread_evenly(range(model.info.d_vocab), N_OPTIONS),
        repeats=repeats,
    )


def devices_of(model: Any) -> list[torch.device]:
    """Devices that hold weights."""
    return sorted({weight.device for weight in model.parameters()}, key=str)


def random_prompts(d_vocab: int, length: int, shared: int) -> tuple[list[int], list[int]]:
    """Two prompts that differ at every position but the last `shared`, where they are the same."""
    generator = torch.Generator().manual_seed(SEED)
    base = torch.randint(d_vocab, (length,), generator=generator)
    step = torch.randint(1, d_vocab, (length,), generator=generator)
    step[length - shared :] = 0
    return base.tolist(), ((base + step) % d_vocab).tolist()


def spread_evenly(items: Sequence[Any], n: int) -> list[Any]:
    """`n` of the items at even distances, the first and the last among them; all if fewer."""
    n = min(n, len(items))
    return [items[round(index * (len(items) - 1) / max(1, n - 1))] for index in range(n)]


def seconds_of(function: Callable[[], object], devices: Sequence[torch.device]) -> float:
    """Wall time of one call, everything that it started on the devices included."""
    _synchronise(devices)
    started = time.perf_counter()
    function()
    _synchronise(devices)
    return time.perf_counter() - started


def _synchronise(devices: Sequence[torch.device]) -> None:
    for device in devices:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)


def measure(case: Case, reporter: Reporter) -> dict[str, Any]:
    """Everything about one kind of positions."""
    kept: dict[str, Tensor] = {}
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "loop": lambda: _time_loop(case, kept),
        "forked": lambda: _time_forked(case, kept),
        "plain_forward": lambda: _time_plain(case, kept),
        "attribution": lambda: _time_attribution(case),
    }
    parts: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        with reporter.step(f"{case.kind}: {name.replace('_', ' ')}"):
            parts[name] = _attempt(way)
    loop, forked, plain, attribution = (part.get("seconds") for part in parts.values())
    return {
        "patched_positions": case.patched,
        "heads": len(case.heads),
        **parts,
        "loop_over_forked": _ratio(loop, forked),
        "forked_over_plain": _ratio(forked, plain),
        "loop_over_attribution": _ratio(loop, attribution),
        **_differences(kept),
    }


def _attempt(way: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return way()
    except REFUSALS as error:
        reason = first_line(error)
    # Outside the handler, since the exception's traceback holds the tensors that filled memory.
    clear_device_cache(garbage_collection=True)
    return {"error": reason}


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def _differences(kept: dict[str, Tensor]) -> dict[str, float | None]:
    """How far the two ways' logits lie apart, how far patching moves them, and how large they are.

    `rounding` is how far the unpatched prompt's logits lie apart between the loop's attention and
    the plain forward's: what this dtype leaves open. None where a way failed or a logit is not
    finite.
    """
    values: dict[str, Tensor] = {}
    if "loop" in kept:
        loop = kept["loop"]
        values = {"max_effect": loop - kept["unpatched"], "max_logit": loop}
        if "forked" in kept:
            values["max_difference"] = kept["forked"].to(loop.device) - loop
        if "plain" in kept:
            values["rounding"] = kept["plain"].to(loop.device) - kept["unpatched"]
    names = ("max_difference", "rounding", "max_effect", "max_logit")
    largest = {name: float(value.abs().max()) for name, value in values.items()}
    return {
        name: largest[name] if math.isfinite(largest.get(name, math.nan)) else None
        for name in names
    }


@torch.no_grad()
def _time_loop(case: Case, kept: dict[str, Tensor]) -> dict[str, Any]:
    """TransformerLens's loop over the sampled heads; keeps their logits at the last token."""
    start = len(case.base) - case.patched
    index = pd.DataFrame(
        {"layer": layer, "pos": start, "head": head} for layer, head in case.sampled
    )
    setter: Any = layer_pos_head_vector_patch_setter if case.patched == 1 else _patch_from
    tokens, source = case.ids(case.base), cast(ActivationCache, case.source)
    logits: list[Float[Tensor, " d_vocab"]] = []

    def keep(patched: Float[Tensor, "1 position d_vocab"]) -> Float[Tensor, ""]:
        logits.append(patched[0, -1].float())
        return case.metric(patched)

    def loop(metric: Callable[[Tensor], Tensor]) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            generic_activation_patch(
                case.model.bridge, tokens, source, metric, setter, "z", index_df=index
            )

    loop(keep)
    kept |= {"loop": torch.stack(logits), "unpatched": case.model.bridge(tokens)[0, -1].float()}
    per_head = case.seconds(lambda: loop(case.metric)) / len(index)
    return {
        "seconds": per_head * len(case.heads),
        "seconds_per_head": per_head,
        "sampled_heads": len(index),
        "extrapolated": len(index) < len(case.heads),
    }


def _patch_from(
    z: Float[Tensor, "1 position head d_head"], index: Sequence[int], source: Tensor
) -> Tensor:
    """A patch setter for [layer, position, head]: from that position on, in place."""
    _, start, head = index
    z[:, start:, head] = source[:, start:, head]
    return z


@torch.no_grad()
def _time_forked(case: Case, kept: dict[str, Tensor]) -> dict[str, Any]:
    """Every head with `patch_heads`, the prompt's own run included; keeps the sampled logits."""
    model = case.model
    if not can_fork(model, case.base):
        raise ValueError("the model cannot fork, so its heads are patched by the loop")
    z = [case.source[name][0, -case.patched :].to(model.device) for name in case.names]
    source = torch.stack(z)

    def sweep() -> None:
        patch_heads(model, case.base, source, [[head] for head in case.heads], tokens=case.options)

    sweep()
    kept["forked"] = patch_heads(
        model, case.base, source, [[head] for head in case.sampled]
    ).float()
    accelerators = [device for device in case.devices if device.type == "cuda"]
    held = [torch.cuda.memory_allocated(device) for device in accelerators]
    for device in accelerators:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = case.seconds(sweep)
    peaks = [torch.cuda.max_memory_allocated(device) for device in accelerators]
    return {
        "seconds": seconds,
        "seconds_per_head": seconds / len(case.heads),
        "peak_bytes": max(
            (peak - before for peak, before in zip(peaks, held, strict=True)), default=None
        ),
        "pack_tokens": model.pack_budget.tokens,
    }


@torch.no_grad()
def _time_plain(case: Case, kept: dict[str, Tensor]) -> dict[str, Any]:
    """The model itself on as many tokens as the sweep patches heads at positions, and the prompt.

    For the decision that is one sequence where the context allows it; for a span, rows of its
    length in packs. One or two packs are timed.
    """
    total = len(case.base) + len(case.heads) * case.patched
    whole = min(total, case.model.context_length or total)
    row = whole if case.kind == "decision" else case.patched
    rows = math.ceil(total / row)
    budget = START_TOKENS.get(case.model.device.type, START_TOKENS_ELSEWHERE)
    pack = max(1, budget // row)
    timed = min(rows, TIMED_PACKS * pack)
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(case.model.info.d_vocab, (timed, row), generator=generator)
    packs = tokens.to(case.model.device).split(pack)
    kwargs = {"logits_to_keep": 1} if case.model.accepts("logits_to_keep") else {}

    def forward() -> None:
        for part in packs:
            case.plain(input_ids=part, use_cache=False, **kwargs)

    forward()
    kept["plain"] = case.plain(input_ids=case.ids(case.base), use_cache=False).logits[0, -1].float()
    return {
        "seconds": case.seconds(forward) * total / (timed * row),
        "tokens": total,
        "timed_tokens": timed * row,
        "pack_tokens": pack * row,
        "extrapolated": timed < rows,
    }


def _time_attribution(case: Case) -> dict[str, Any]:
    """Two forwards and a backward by TransformerLens, then the estimate of every head.

    `attribution_patch` itself also scores the embedding and MLPs, node by node in Python; here its
    gradient cache is asked for heads alone, and contracted layer by layer.
    """
    base, other = case.ids(case.base), case.ids(case.other)
    # It needs a point upstream of the first z, whose backward hook would not fire otherwise.
    names = ["hook_embed", *case.names]
    bridge = case.model.bridge

    def estimate() -> None:
        with torch.no_grad():
            clean = cache_activation_and_gradient(bridge, other, case.metric, names, False)
        with torch.enable_grad():
            corrupted = cache_activation_and_gradient(bridge, base, case.metric, names)
        for name in case.names:
            gradient = corrupted.gradients[name]
            if gradient is None:
                raise ValueError(f"no gradient at {name}")
            change = clean.activations[name] - corrupted.activations[name]
            (change * gradient)[0, -case.patched :].sum(dim=(0, -1))

    estimate()
    return {"seconds": case.seconds(estimate)}
