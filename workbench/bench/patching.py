"""What patching every head costs on this machine, beside what a user would run instead.

`bench` times four ways (`bench_ways`) on two random prompts, on a model folder or on random weights
of a known shape. `bench_sweep` times the whole sweep of a task's prompts.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformer_lens.utilities.devices import get_device
from transformers import PreTrainedModel

from workbench.bench.shapes import check_shape, random_model
from workbench.bench.sweep import bench_sweep
from workbench.bench.ways import N_OPTIONS, SEED, devices_of, make_case, measure, random_prompts
from workbench.errors import InputError
from workbench.files import write_text
from workbench.models import loading
from workbench.models.forked import can_fork
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path
from workbench.models.steered import share_weights
from workbench.progress import Reporter
from workbench.prompts.make import make_prompts
from workbench.runs.config import POSITIONS, RunConfig
from workbench.runs.manifest import versions

SCHEMA = "workbench.bench/1"


def bench(
    *,
    model: str | Path | None = None,
    shape: str | None = None,
    positions: Sequence[str] = POSITIONS,
    length: int = 512,
    suffix: int = 384,
    sample: int = 8,
    dtype: torch.dtype | str = "float32",
    device: str | torch.device | None = None,
    repeats: int = 3,
    sweep_prompts: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Time the four ways on a model folder, or on random weights of a known shape; JSON-ready.

    Without `model` and `shape` it is the bundled model. Prompts have `length` tokens; in a span the
    last `suffix` tokens are shared and patched. The loop runs `sample` heads. A device "auto"
    spreads the model over all accelerators. With `sweep_prompts`, also the whole sweep of so many
    prompts of the bundled task (`bench_sweep`). A way that a library refuses, or that does not fit
    into memory, has an `error` in place of its time.

    Raises:
        InputError: both a model and a shape, a model that cannot be loaded, or a number outside its
            range or the model's context.
    """
    if model is not None and shape is not None:
        raise InputError("give either a model or a shape, not both")
    if shape is not None:
        check_shape(shape)
    if sweep_prompts and shape is not None:
        raise InputError(f"shape {shape!r} has no tokenizer to make prompts with; give a model")
    _check(positions, length=length, suffix=suffix, sample=sample, repeats=repeats)
    dtype = loading.parse_dtype(dtype)
    reporter = reporter or Reporter(Console(quiet=True))
    with reporter.step(f"loading {shape or model or 'the bundled model'}"):
        hf_model, name, weights_sha256 = _load(model, shape, dtype, device)
    # The bridge puts its own modules into the model, so the plain one is a copy made before.
    plain: Any = share_weights(hf_model).eval()
    plain.set_attn_implementation("sdpa")
    hooked = HookedModel.from_pretrained_model(hf_model, None, name, weights_sha256)
    if hooked.context_length is not None and length > hooked.context_length:
        raise InputError(f"length is {length}, model {name!r} takes {hooked.context_length} tokens")
    config = RunConfig(n_prompts=max(2, sweep_prompts), seed=SEED)
    prompts = make_prompts(model=model, **config.of_prompts()) if sweep_prompts else None
    forked = can_fork(hooked, random_prompts(hooked.info.d_vocab, length, 0)[0])
    devices = devices_of(plain)
    return {
        "schema": SCHEMA,
        "versions": versions(),
        "devices": [device_name(device) for device in devices],
        "threads": torch.get_num_threads() if devices[0].type == "cpu" else None,
        "dtype": str(dtype).removeprefix("torch."),
        "model": _describe(hooked, plain, shape),
        "length": length,
        "suffix": suffix,
        "sample": sample,
        "repeats": repeats,
        "options": N_OPTIONS,
        "forked": forked,
        "positions": {
            kind: measure(make_case(hooked, plain, kind, length, suffix, sample, repeats), reporter)
            for kind in positions
        },
        "sweep": None if prompts is None else bench_sweep(hooked, prompts, config, reporter),
    }


def write(result: dict[str, Any], path: str | Path) -> None:
    """Write a result as JSON; a file that is there is replaced.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written, {error.strerror or error}") from error


def summary_lines(result: dict[str, Any]) -> list[str]:
    """The ratios of a result in words, a line each."""
    lines = [f"{result['model']['name']}, {result['dtype']}, {', '.join(result['devices'])}"]
    for kind, part in result["positions"].items():
        ratios = {
            "times faster than the loop": part["loop_over_forked"],
            "of a plain forward of as many tokens": part["forked_over_plain"],
            "largest difference to the loop": part["max_difference"],
            "by rounding, unpatched": part["rounding"],
        }
        said = [f"{value:.3g} {words}" for words, value in ratios.items() if value is not None]
        lines.append(f"{kind}: {', '.join(said) or 'nothing could be measured'}")
    if sweep := result["sweep"]:
        lines.append(
            f"sweep of {sweep['events']} events: {sweep['loop_over_full']:.3g} times faster than "
            f"the loop, screened {sweep['loop_over_screened']:.3g} times, which kept "
            f"{sweep['of_these_kept']} of {sweep['heads_that_matter']} heads that matter"
        )
    return lines


def _check(positions: Sequence[str], **numbers: int) -> None:
    given: Any = tuple(positions)
    RunConfig(positions=given)  # refuses unknown ones and repetitions
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name} is {value}, must be at least 1")
    length, suffix = numbers["length"], numbers["suffix"]
    if "span" in positions and suffix >= length:
        raise InputError(
            f"suffix is {suffix}, must be below the length of {length}: "
            "prompts that share every token are the same"
        )


def _load(
    model: str | Path | None,
    shape: str | None,
    dtype: torch.dtype,
    device: str | torch.device | None,
) -> tuple[PreTrainedModel, str, str]:
    """The Hugging Face model, its name, and the hash of its weights."""
    if shape is not None:
        return random_model(shape, dtype, device, seed=SEED), shape, "random"
    source = bundled_model_path() if model is None else model
    folder = loading.model_folder(source)
    name, _ = loading.recorded_name(source, folder)
    digest = loading.weights_sha256(folder)
    if device == "auto":
        return loading.read_model(folder, dtype=dtype, device_map="auto"), name, digest
    target: Any = loading.parse_device(device or get_device())
    return loading.read_model(folder, dtype=dtype).to(target), name, digest


def _describe(model: HookedModel, plain: Any, shape: str | None) -> dict[str, Any]:
    sizes = asdict(model.info)
    kept = ("architecture", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_vocab")
    return {
        "name": model.info.name,
        "shape": shape,
        "weights_sha256": model.info.weights_sha256,
        "parameters": sum(weight.numel() for weight in plain.parameters()),
        **{name: sizes[name] for name in kept},
    }


def device_name(device: torch.device) -> str:
    """What it is called, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else device.type
