"""The modules of a Hugging Face model that are read, whatever they are called."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from workbench.errors import InputError
from workbench.heads import ModelShape

OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
"""What attention modules call their output module."""


def plain_model(model: Any) -> PreTrainedModel:
    """The model itself, of one that peft has wrapped; its layers are the same."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def output_module(attention: nn.Module) -> nn.Module | None:
    """What makes of the heads' outputs what attention adds; mostly a linear map."""
    named = (getattr(attention, name, None) for name in OUTPUTS)
    return next((module for module in named if isinstance(module, nn.Module)), None)


def attention_modules(model: PreTrainedModel) -> tuple[list[nn.Module], list[nn.Module]]:
    """Attention modules and the blocks that hold them, in layer order.

    Raises:
        InputError: not one in each layer, with an output module of a known name.
    """
    found: dict[int, str] = {
        module.layer_idx: path  # pyright: ignore[reportAssignmentType]
        for path, module in model.named_modules()
        if isinstance(getattr(module, "layer_idx", None), int) and output_module(module) is not None
    }
    n_layers = model.config.get_text_config().num_hidden_layers
    if sorted(found) != list(range(n_layers)):
        raise InputError(
            f"{type(model).__name__} cannot be read: needs an attention module with one of "
            f"{', '.join(OUTPUTS)} in each of its {n_layers} layers, {len(found)} have one"
        )
    paths = [found[layer] for layer in range(n_layers)]
    blocks = [model.get_submodule(path.rpartition(".")[0]) for path in paths]
    return [model.get_submodule(path) for path in paths], blocks


def final_norm(model: PreTrainedModel) -> Any:
    """The norm before the unembedding.

    Raises:
        InputError: there is none of the name that root-mean-square norms have there.
    """
    norm = getattr(plain_model(model).base_model, "norm", None)
    if not isinstance(norm, nn.Module):
        raise InputError(
            f"{type(model).__name__} has no final root-mean-square norm, which direct "
            "contributions to logits need"
        )
    return norm


def shape_of(model: PreTrainedModel) -> ModelShape:
    """Layers and heads of a Hugging Face model."""
    config = model.config.get_text_config()
    n_kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return ModelShape(
        n_layers=config.num_hidden_layers, n_heads=config.num_attention_heads, n_kv_heads=n_kv_heads
    )
