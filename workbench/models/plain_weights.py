"""What the weights of a model must be: its own, all of them, as numbers that can be computed with.

transformers leaves much of this to the user: it skips what it does not know (a quantisation, a
layer beyond the configuration, an adapter without its library) and goes on.
"""

import copy
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from workbench.errors import InputError, shorten

# Libraries whose modules stand in place of a model's own, and are not what its configuration says.
ADAPTER_LIBRARIES = {"peft", "adapters"}
QUANTISING_LIBRARIES = {
    "bitsandbytes",
    "torchao",
    "gptqmodel",
    "auto_gptq",
    "awq",
    "hqq",
    "optimum",
    "compressed_tensors",
}
COUNTS = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_size",
    "head_dim",
    "vocab_size",
)
LONGEST_KEY = 100
"""Characters of a tensor's name that are shown; a real one is shorter."""
FLOATS = {"F16", "BF16", "F32", "F64"}
MERGE = "merge it into its base model (peft: merge_and_unload) and save the whole"
DEQUANTISE = (
    "heads are read and patched in plain weights; give the model that it was made from, or a "
    "dequantised copy, saved in bfloat16 or float32 without its quantization_config"
)


def check_unquantised(config: Mapping[str, Any], where: object) -> None:
    """Refuse the configuration of a quantised model: most methods need a library, all other names.

    Raises:
        InputError: naming the method.
    """
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key in ("quantization_config", "compression_config"):
            if settings := part.get(key):
                method = isinstance(settings, Mapping) and settings.get("quant_method")
                raise InputError(
                    f"{where} is of a quantised model ({shorten(method or key)}), and {DEQUANTISE}"
                )


def check_counts(config: Any, where: object) -> None:
    """Refuse a configuration without layers, heads, width or vocabulary.

    Raises:
        InputError: naming the number.
    """
    text_config = config.get_text_config()
    values = vars(text_config)  # asked by name, it refuses what differs between layers
    for key in COUNTS:
        count = values.get(text_config.attribute_map.get(key, key))
        if isinstance(count, int) and count < 1:
            raise InputError(f"{where}: {key} is {count}, must be at least 1")


def tensor_headers(files: Iterable[Path]) -> dict[str, tuple[str, list[int]]]:
    """Storage type and shape of every tensor in safetensors files; the tensors are not read."""
    headers = {}
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118, no mapping
                entry = tensors.get_slice(key)
                headers[key] = (entry.get_dtype(), entry.get_shape())
    return headers


def check_stored(headers: Mapping[str, tuple[str, list[int]]], folder: Path) -> None:
    """Refuse weights stored in a type that means nothing without its scales.

    Raises:
        InputError: naming the first such tensor.
    """
    for key, (dtype, _) in headers.items():
        if key.endswith("weight") and dtype not in FLOATS:
            raise InputError(
                f"weights in {folder} are quantised ({key[:LONGEST_KEY]} is {dtype}), and "
                f"{DEQUANTISE}"
            )


def check_sizes(config: Any, headers: Mapping[str, tuple[str, list[int]]], folder: Path) -> None:
    """Refuse weights of other sizes than the configuration's, before memory is taken for either.

    Raises:
        InputError: naming the first, with both sizes.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if layers > len(headers):
        raise InputError(
            f"{folder}/config.json: num_hidden_layers is {layers}, there are {len(headers)} weights"
        )
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception:  # what is wrong is said when it is loaded
        return
    for key, value in model.state_dict().items():
        _, stored = headers.get(key, ("", list(value.shape)))
        if math.prod(stored) != value.numel():  # some are turned or folded when they are loaded
            raise InputError(
                f"weights in {folder}: {key} has shape {stored}, by config.json {list(value.shape)}"
            )


def check_none_left_over(
    model: PreTrainedModel,
    unexpected: Iterable[str],
    headers: Mapping[str, tuple[str, list[int]]],
    folder: Path,
) -> None:
    """Refuse weights inside the model's own modules that its configuration has no place for.

    What lies elsewhere is another part of a larger model (a vision tower, heads that predict
    further tokens), and what is no parameter is a buffer of an older version.

    Raises:
        InputError: naming the first, e.g. of a layer beyond the configuration.
    """
    config: Any = model.config.get_text_config()
    first = getattr(config, "num_hidden_layers", 0)
    further = range(first, first + (getattr(config, "num_nextn_predict_layers", None) or 0))
    base = model.base_model_prefix
    own = {_pattern(name) for name, _ in model.named_modules()} - {"", base}
    own |= {name.removeprefix(f"{base}.") for name in own}  # files may leave it out, as GPT-2's
    buffers = {name for name, _ in model.named_buffers()}
    for key in sorted(unexpected):
        layer = re.search(r"\.(\d+)\.", key)
        dtype, shape = next(
            (found for name, found in headers.items() if name.endswith(key)), ("", [])
        )
        parents = key.split(".")[:-1]
        inside = any(_pattern(".".join(parents[: n + 1])) in own for n in range(len(parents)))
        old_buffer = key.endswith(("inv_freq", "masked_bias")) or len(shape) > 3
        is_buffer = key in buffers or old_buffer or dtype not in {*FLOATS, ""}
        if not inside or is_buffer:
            continue
        if layer and int(layer[1]) in further:
            continue
        raise InputError(
            f"weights in {folder} hold {key}, for which its config.json has no place "
            f"(num_hidden_layers {first})"
        )


def _pattern(name: str) -> str:
    """A module's path with every number as one sign, so that all layers are alike."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name)


def check_values(model: PreTrainedModel, name: object) -> None:
    """Refuse weights that are not there, or not finite.

    Raises:
        InputError: naming the first such parameter.
    """
    for key, parameter in model.named_parameters():
        if parameter.is_meta:
            raise InputError(
                f"model {name}: parameter {key} has no values in memory (device meta, or left on "
                "disk by a device_map)"
            )
        if parameter.numel() and not torch.stack(parameter.detach().aminmax()).isfinite().all():
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise InputError(
                f"model {name}: parameter {key} has values that are not finite in {dtype}"
            )


def check_in_memory(model: object, name: str) -> None:
    """Refuse what is no plain transformers model: quantised, with adapters, or without values.

    Raises:
        InputError: saying which, and what would be right.
    """
    libraries = {type(model).__module__.partition(".")[0]}
    if isinstance(model, torch.nn.Module):
        libraries |= {type(module).__module__.partition(".")[0] for module in model.modules()}
    if libraries & ADAPTER_LIBRARIES or getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(f"model {name!r} has an adapter beside its weights; {MERGE}")
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"model {name!r} is a {type(model).__name__}, no transformers model")
    check_unquantised(model.config.to_dict(), f"model {name!r}")
    check_counts(model.config, f"model {name!r}")
    small = any(parameter.element_size() < 2 for parameter in model.parameters())
    if small or libraries & QUANTISING_LIBRARIES or getattr(model, "is_quantized", False):
        raise InputError(f"model {name!r} is quantised, and {DEQUANTISE}")
    check_values(model, repr(name))
