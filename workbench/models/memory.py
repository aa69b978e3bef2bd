"""What a model and its largest step take, against what is free: said before either is there.

A step is a forward with the graph of its gradients, of one prompt, or a pack of branches (see
`batch_budget`). What a layer keeps for gradients is counted by its matrices' widths, as in
Korthikanti et al. (2022, Reducing Activation Recomputation in Large Transformer Models), with the
attention maps in full, since the bridge makes them. It is an estimate: within a third of what was
measured on 1.5 billion parameters.
"""

from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import get_max_memory
from transformers import AutoModelForCausalLM

from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.models.hooked import HookedModel

MAPS = 3
"""Copies of an attention map that a layer keeps: scores, softmax (in float32), what is used."""
STREAMS, INNER, HEADS = 8, 4, 3
"""Activations as wide as the stream, as the MLP, as all heads that a layer keeps of a token."""


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where that is not known."""
    key = device.type if device.type in ("cpu", "mps") else device.index or 0
    every: dict[Any, Any] = get_max_memory()  # by its types text, too, which only callers give
    return every.get(key)


def check_fits(config: Any, dtype: torch.dtype, device: torch.device, name: object) -> None:
    """Refuse a model whose weights alone are larger than what is free.

    Raises:
        InputError: saying what it takes, what is free, and what would fit.
    """
    free = free_bytes(device)
    if free is None:
        return
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception:  # what is wrong is said when it is loaded
        return
    numbers = sum(parameter.numel() for parameter in model.parameters())
    taken = numbers * dtype.itemsize
    if taken <= free:
        return
    ways = []
    if dtype.itemsize > 2 and 2 * numbers <= free:
        ways.append(f"--dtype bfloat16 takes {size(2 * numbers)}")
    everywhere: dict[Any, Any] = get_max_memory()
    accelerators = [space for key, space in everywhere.items() if key != "cpu"]
    if len(accelerators) > 1 and taken <= sum(accelerators):
        ways.append(f"--device auto spreads it over {len(accelerators)} accelerators")
    if device.type != "cpu" and taken <= everywhere["cpu"]:
        ways.append("--device cpu holds it")
    raise InputError(
        f"model {name} takes {size(taken)} in {_name(dtype)}, {device} has {size(free)} free: "
        + (" or ".join(ways) or "take a smaller model or a larger machine")
    )


def largest_step(model: "HookedModel", longest: int) -> int:
    """Bytes that the largest step on prompts of up to `longest` tokens takes beside the model."""
    info, item = model.info, model.dtype.itemsize
    inner = getattr(model.text_config, "intermediate_size", None)
    inner = inner if isinstance(inner, int) else 4 * info.d_model
    heads = (info.n_heads + 2 * info.n_kv_heads) * info.d_head
    maps = info.n_heads * longest**2 * ((MAPS - 1) * item + 4)
    token = (STREAMS * info.d_model + INNER * inner + HEADS * heads) * item
    graph = info.n_layers * (maps + longest * token)
    pack = max(longest, model.pack_budget.tokens) * token
    return max(graph, pack)


def memory_line(model: "HookedModel", longest: int) -> str:
    """One line: what the model takes, what its largest step will, and what is free."""
    weights = sum(weight.nbytes for weight in model.bridge.original_model.parameters())
    step = largest_step(model, longest)
    said = f"memory: model {size(weights)} in {model.info.dtype}, largest step about {size(step)}"
    free = free_bytes(model.device)
    if free is None:
        return said
    said += f", {size(free)} free on {model.device}"
    if step <= free:
        return said
    wider = model.dtype.itemsize > 2
    return (
        f"{said}: it may run out; " + ("--dtype bfloat16 or " if wider else "") + "shorter prompts"
    )


def size(count: int) -> str:
    """Bytes as a person says them: "2.9 GiB"."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
