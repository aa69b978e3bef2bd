"""Models whose weights are spread over the processes of one launch (torch's `fully_shard`).

Each process holds its share of every weight. A block gathers its own when it runs and lets go of
them afterwards, so a model that fits on no device runs on several, each with its own batch. All
processes must run it together: one that runs it alone waits for the others forever.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from workbench.errors import InputError
from workbench.models import folders
from workbench.models.sources import is_adapter

Fill = Callable[[str, Tensor, int], None]
"""(name of a weight, this process's rows of it, the first of these) → values are written there."""


def is_sharded(module: object) -> bool:
    """Whether a module's weights are spread over processes."""
    return isinstance(module, FSDPModule)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """While it lasts, a sharded module's own weights are whole; all processes must take part."""
    if not isinstance(module, FSDPModule):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


def shard(
    build: Callable[[], Any], blocks: Callable[[Any], list[nn.Module]], device: torch.device
) -> PreTrainedModel:
    """A frozen model, spread over all processes, whose weights hold no values yet; see `fill`.

    What is no block (embeddings, last norm) stays whole after a forward, until `reshard`.

    Args:
        build: makes it; its weights are never whole anywhere.
        blocks: its blocks.
        device: of this process.
    """
    with init_empty_weights(include_buffers=False):
        model = build()
    model.tie_weights()  # without memory they were made one by one
    buffers = {name: value.to(device) for name, value in model.named_buffers()}
    model.requires_grad_(False)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=device)
    for name, value in buffers.items():
        path, _, own = name.rpartition(".")
        holder = model.get_submodule(path)
        holder.register_buffer(own, value, persistent=own not in holder._non_persistent_buffers_set)
    return model.eval()


@torch.no_grad()
def fill(model: nn.Module, values: Fill) -> None:
    """Give a sharded model its values; each process asks for its own rows alone."""
    for name, weight in model.named_parameters():
        if not isinstance(weight, DTensor):
            values(name, weight, 0)
            continue
        local: Any = weight.to_local()
        if local.numel():  # of few rows some processes have none
            values(name, local, dist.get_rank() * -(-weight.shape[0] // dist.get_world_size()))


def read_sharded(
    folder: Path,
    blocks: Callable[[Any], list[nn.Module]],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> PreTrainedModel:
    """The frozen model of a folder, of which each process reads its share.

    Attention is torch's own, but for models that cap its scores.

    Args:
        folder: a checked one, of safetensors.
        blocks: of a model.
        dtype: of its weights.
        device: of this process.

    Raises:
        InputError: a GGUF file, an adapter, or weights that are not named or shaped as the model's.
    """
    if not folder.is_dir() or is_adapter(folder):
        raise InputError(f"{folder}: only whole models in safetensors are read in shares")
    config = folders.hf_config(folder)
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    model = shard(
        lambda: AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation="eager" if capped else "sdpa",
            trust_remote_code=False,
        ),
        blocks,
        device,
    )
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    held = {}
    for path in folders.weight_files(folder):
        with safe_open(path, "pt") as file:
            held |= {name: (path, tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    wrong = [name for name, shape in shapes.items() if name not in held or held[name][1] != shape]
    if wrong:
        raise InputError(
            f"{folder}: {len(wrong)} weights are not as the model has them, first {wrong[0]}, so "
            "it cannot be read in shares; load it whole"
        )

    def read(name: str, rows: Tensor, first: int) -> None:
        with safe_open(held[name][0], "pt") as file:
            rows.copy_(file.get_slice(name)[first : first + len(rows)])

    fill(model, read)
    return model
