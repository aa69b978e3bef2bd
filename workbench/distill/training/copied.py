"""Students made of some layers of a model, with its embeddings, final norm and head as they are."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from workbench.distill.config import CopiedLayers, DistillationConfig, LossConfig
from workbench.distill.reading.parts import attention_modules, shape_of
from workbench.errors import InputError
from workbench.models import loading
from workbench.models.sources import is_adapter

LISTED = ("no_rope_layers",)
"""Settings that hold a number for each layer; all that hold a word for each are known by that."""


def read_copied(wanted: CopiedLayers, folder: Path) -> PreTrainedModel:
    """The student that some layers of the model in a folder make, in float32.

    An adapter is merged before. Weights are read as precisely as they are stored.

    Raises:
        InputError: a model that cannot be read, layers that it lacks, or what `copy_layers`
            refuses.
    """
    config = loading.hf_config(folder)
    layers = wanted.of(config.get_text_config().num_hidden_layers)
    merged = not folder.is_dir() or is_adapter(folder)  # or one GGUF file
    dtype = torch.float32 if merged or config.dtype is None else config.dtype
    assert isinstance(dtype, torch.dtype)
    return copy_layers(loading.read_model(folder, dtype=dtype), layers)


def of_teacher(config: DistillationConfig) -> CopiedLayers | None:
    """The layers of the teacher that the student is made of; None for any other student."""
    wanted = config.student
    return wanted if isinstance(wanted, CopiedLayers) and wanted.from_ is None else None


def check_teacher(folder: Path, digest: str, config: DistillationConfig, *, bare: bool) -> None:
    """Refuse another teacher than that of the targets, whose weights have this hash.

    `bare` says that the folder is the targets' own, without weights.

    Raises:
        InputError: its weights are others, or there are none to copy layers from.
    """
    if bare and of_teacher(config) is not None:
        raise InputError(
            "layers are copied from the teacher's weights, which targets do not hold; give "
            "--teacher, too"
        )
    if not bare and loading.weights_sha256(folder) != digest:
        raise InputError(f"{folder}: is not the teacher that the targets are of ({digest[:12]})")


def compared(config: DistillationConfig, teacher: PreTrainedModel) -> LossConfig:
    """The loss, in which copied layers are compared with those that they were copied from."""
    loss, wanted = config.loss, of_teacher(config)
    if wanted is None or loss.layers is not None:
        return loss
    return replace(loss, layers=tuple(enumerate(wanted.of(shape_of(teacher).n_layers))))


@torch.no_grad()
def copy_layers(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A model of some layers of another, in float32 and on the CPU; it shares no weight with it.

    Args:
        model: a whole one; it stays as it is.
        layers: those that are copied, from 0, in order.

    Raises:
        InputError: the copy is not what the model is without its other layers, as where what a
            layer does depends on its place.
    """
    blocks, dtype = attention_modules(model)[1], model.dtype
    places = {id(module): name for name, module in model.named_modules()}
    paths = [places[id(block)] for block in blocks]
    state = {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in _renamed(model.state_dict(), paths, layers)
    }
    made: Any = type(model)
    try:
        copy, report = made.from_pretrained(
            None,
            config=_config(model.config, layers),
            state_dict=state,
            dtype=dtype,
            attn_implementation="eager",
            trust_remote_code=False,
            output_loading_info=True,
        )
        wrong = any(report[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    except (ValueError, RuntimeError, TypeError, IndexError):
        wrong = True
    if wrong or not _is_the_rest(model, blocks, layers, copy.eval()):
        raise InputError(
            f"layers of {type(model).__name__} cannot be copied: the copy does something else than "
            "the model without its other layers"
        )
    copy.generation_config = deepcopy(model.generation_config)
    return copy.float().requires_grad_(True)


def _renamed(
    state: dict[str, Tensor], paths: Sequence[str], layers: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names that they have in the copy, without those of other layers."""
    for name, weight in state.items():
        at = next((at for at, path in enumerate(paths) if name.startswith(f"{path}.")), None)
        if at is None:
            yield name, weight
        elif at in layers:
            yield paths[layers.index(at)] + name.removeprefix(paths[at]), weight


def _config(config: PreTrainedConfig, layers: Sequence[int]) -> PreTrainedConfig:
    config = deepcopy(config)
    text: Any = config.get_text_config()
    n_layers = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if not isinstance(value, list) or len(value) != n_layers:
            continue
        if name in LISTED or all(isinstance(one, str) for one in value):
            setattr(text, name, [value[layer] for layer in layers])
    text.num_hidden_layers = len(layers)
    return config


def _is_the_rest(
    model: Any, blocks: Sequence[nn.Module], layers: Sequence[int], copy: PreTrainedModel
) -> bool:
    """Whether a copy has the layers' settings, and the logits of the model without the others."""
    for layer, block in zip(layers, attention_modules(copy)[1], strict=True):
        if _settings(blocks[layer]) != _settings(block):
            return False
    ids = torch.arange(1, 9)[None] % model.config.get_text_config().vocab_size
    training = model.training
    model.eval()
    with _without([block for at, block in enumerate(blocks) if at not in layers]):
        expected = model(input_ids=ids.to(model.device), use_cache=False).logits
    model.train(training)
    found = copy(input_ids=ids, use_cache=False).logits
    expected, found = (x.double().cpu() for x in (expected, found))
    allowed = max(1e-4, 8 * torch.finfo(copy.dtype).eps) * float(expected.norm())
    return float((found - expected).norm()) <= allowed


def _settings(block: nn.Module) -> list[tuple[str, str, Any]]:
    """Plain settings of all modules of a block, such as the width of its window."""
    return [
        (path, name, value)
        for path, module in block.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float | str | None)
        and not name.startswith("_")
        and name not in ("layer_idx", "training")
    ]


@contextmanager
def _without(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks that pass on what they are given."""

    def pass_on(module: nn.Module, given: Any, named: Any, output: Any) -> Any:
        stream = given[0] if given else named["hidden_states"]
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    with ExitStack() as stack:
        for block in blocks:
            hook = block.register_forward_hook(pass_on, with_kwargs=True)
            stack.callback(hook.remove)
        yield
