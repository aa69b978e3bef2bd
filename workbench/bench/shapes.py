"""Models of a known shape with random weights, made where they will run.

What a forward costs depends on a model's shape, not on its weights. So a cost can be measured
without a download:

1. build the modules on the meta device, where they take no memory;
2. decide which device holds which module;
3. give each module memory there, and draw its weights there.

No copy is made on the CPU on the way, in any dtype.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils.modeling import get_balanced_memory
from torch import Tensor, nn
from transformer_lens.utilities.devices import get_device
from transformers import PreTrainedModel

from workbench.distill.reading.parts import attention_modules
from workbench.errors import InputError
from workbench.models import loading
from workbench.models.llama import LlamaShape
from workbench.models.sharded import fill, shard

STD = 0.02
"""Standard deviation of matrices, as Llama itself starts from.

The residual stream starts at unit size (embeddings have deviation 1), and what writes to it has
`STD` divided by 2 · layers: a deep random model blows up rounding otherwise, which trained ones do
not.
"""

WRITERS = ("o_proj", "down_proj")
"""Names of the modules that write to the residual stream."""

DeviceMap = Mapping[str, Any]
"""Path of a module ("" for the whole model) → device of everything in it."""


SHAPES: dict[str, tuple[LlamaShape, int]] = {
    "llama3-8b": (LlamaShape(32, 32, 8, 4096, 14336), 128256),
    "llama3-70b": (LlamaShape(80, 64, 8, 8192, 28672), 128256),
    "llama3-1b": (LlamaShape(16, 32, 8, 2048, 8192), 128256),
    "tiny": (LlamaShape(4, 4, 2, 64, 128), 512),
    "tiny-4k": (LlamaShape(4, 4, 2, 64, 128), 4096),
}
"""Name → sizes and vocabulary; `tiny` is for a first look and for tests."""

TIED = ("llama3-1b",)
"""Shapes whose embeddings are tied."""

CONTEXT = 8192
ROPE_THETA = 500_000.0


def random_model(
    shape: str,
    dtype: torch.dtype | str = "float32",
    device: str | torch.device | None = None,
    *,
    seed: int = 0,
) -> PreTrainedModel:
    """A Llama model of a known shape with normal weights (see `STD`).

    Without `device` it goes to the accelerator if there is one; "auto" spreads the blocks over all
    accelerators. The seed gives the same weights on the same devices.

    Raises:
        InputError: an unknown shape, dtype or device, or a model too large for the accelerators.
    """
    dtype = loading.parse_dtype(dtype)
    with torch.device("meta"):
        model = build(shape, dtype)
    if device == "auto" and torch.accelerator.device_count() > 1:
        device_map = balanced_map(model)
        materialise(model, device_map, seed)
        return spread(model, device_map)
    target = get_device() if device in (None, "auto") else device
    materialise(model, {"": loading.parse_device(target)}, seed)
    return model.eval()


def build(shape: str, dtype: torch.dtype, n_layers: int | None = None) -> PreTrainedModel:
    """A model of a known shape, of all its layers or fewer, on torch's default device."""
    check_shape(shape)
    sizes, d_vocab = SHAPES[shape]
    if n_layers is not None:
        sizes = replace(sizes, n_layers=n_layers)
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
    return sizes.build(
        d_vocab, CONTEXT, dtype=dtype, tie_word_embeddings=shape in TIED, rope_parameters=rope
    )


def random_shares(
    shape: str, dtype: torch.dtype, device: torch.device, n_layers: int | None = None
) -> PreTrainedModel:
    """A frozen model of a known shape over all processes, each of which draws its own rows."""
    model = shard(
        lambda: build(shape, dtype, n_layers), lambda model: attention_modules(model)[1], device
    )
    generator = torch.Generator(device).manual_seed(dist.get_rank())

    def draw(name: str, rows: Tensor, first: int) -> None:
        if rows.ndim == 1:
            rows.fill_(1)
        else:
            path = name.rpartition(".")[0]
            std = _std(path, model.get_submodule(path), model.config)
            rows.normal_(std=std, generator=generator)

    fill(model, draw)
    return model


def check_shape(shape: str) -> None:
    """Refuse a shape that is not known.

    Raises:
        InputError: naming those that are.
    """
    if shape not in SHAPES:
        raise InputError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")


def balanced_map(
    model: PreTrainedModel, max_memory: dict[Any, Any] | None = None
) -> dict[str, int | str | torch.device]:
    """Module paths → accelerators, whole blocks, about as much on each.

    `max_memory` is the bytes of each accelerator, by default what is free there.

    Raises:
        InputError: the model does not fit.
    """
    whole: Any = sorted(model._no_split_modules or [])
    memory = get_balanced_memory(model, max_memory, no_split_module_classes=whole)
    device_map = infer_auto_device_map(model, memory, no_split_module_classes=whole)
    if {"cpu", "disk"} & {str(device) for device in device_map.values()}:
        size = sum(parameter.nbytes for parameter in model.parameters())
        raise InputError(
            f"the model's {size / 2**30:.0f} GiB of weights do not fit on the accelerators: "
            "use more of them, a smaller dtype or a smaller shape"
        )
    return dict(device_map)


@torch.no_grad()
def materialise(model: PreTrainedModel, device_map: DeviceMap, seed: int) -> None:
    """Turn a Llama model on the meta device into one with random weights on the mapped devices."""
    generators: dict[torch.device, torch.Generator] = {}
    for path, module in model.named_modules():
        device = device_of(path, device_map)
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        module.to_empty(device=device, recurse=False)
        std = _std(path, module, model.config)
        for parameter in module.parameters(recurse=False):
            if parameter.ndim == 1:  # norms, the only vectors in a Llama model
                parameter.fill_(1)
            else:
                parameter.normal_(std=std, generator=generators[device])
    model.tie_weights()
    _rebuild_rotary(model)


def device_of(path: str, device_map: DeviceMap) -> torch.device:
    """Device of the longest mapped path at or above a module; the first one's for those above."""
    while path and path not in device_map:
        path = path.rpartition(".")[0]
    device = device_map.get(path, next(iter(device_map.values())))
    return torch.empty(0, device=device).device


def spread(model: PreTrainedModel, device_map: DeviceMap) -> PreTrainedModel:
    """Let activations follow the weights from device to device."""
    skipped: Any = model._skip_keys_device_placement
    dispatched: Any = dispatch_model(
        model, dict(device_map), skip_keys=sorted(skipped or []), force_hooks=True
    )
    return dispatched.eval()


def _std(path: str, module: nn.Module, config: Any) -> float:
    if isinstance(module, nn.Embedding):  # tied ones make logits, too
        return STD if config.tie_word_embeddings else 1.0
    written = path.rpartition(".")[2] in WRITERS
    return STD / (2 * config.num_hidden_layers) if written else STD


def _rebuild_rotary(model: PreTrainedModel) -> None:
    """Compute the rotary frequencies: buffers outside the state dict, empty on a meta model."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if "RotaryEmbedding" in type(child).__name__:
                build: Any = type(child)
                device = next(child.buffers()).device
                setattr(module, name, build(config=child.config).to(device))
