"""Model folders in Hugging Face form, checked before anything is read from them.

Such a folder holds `config.json`, safetensors weights (one file, or shards with an index) and, when
there is one, a tokenizer. No pickle, no code from the folder, no weight left at its random initial
value, and what `plain_weights` checks.
"""

import codecs
import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from workbench.errors import InputError, first_line, shorten
from workbench.files import read_text, reading
from workbench.models import plain_weights
from workbench.models.sources import config_path

SINGLE_FILE = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        InputError: the file is missing, is not JSON, names no `model_type` of transformers (one
            with code of its own is never run), or is of a quantised model.
    """
    path = config_path(folder)
    config = _read_json(path)
    if "model_type" not in config:
        raise InputError(f"{path} has no 'model_type'; is this a Hugging Face model folder?")
    kind = config["model_type"]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise InputError(
            f"{path}: model_type {shorten(kind)} is none that the installed transformers has; "
            "code that comes with a model is never run"
        )
    plain_weights.check_unquantised(config, path)
    return config


def hf_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a model folder, as transformers reads it.

    Raises:
        InputError: what `read_config` refuses, values that transformers refuses, or no layers or
            heads.
    """
    read_config(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        why = _marked(folder) or first_line(error)
        raise InputError(f"{folder}/config.json cannot be read: {why}") from error
    plain_weights.check_counts(config, folder / "config.json")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def _marked(folder: Path) -> str | None:
    """What to do about a file that looks right and that transformers does not read."""
    for path in sorted(folder.glob("*.json")):
        with reading(path), path.open("rb") as file:
            if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
                return f"{path.name} begins with a byte-order mark; save it as UTF-8 without one"
    return None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model, in name order.

    Raises:
        InputError: pickle weights only, no weights at all, weights under a name that is not
            loaded, or an index that names a shard that is not there.
    """
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / SHARD_INDEX).is_file():
        return _shards(folder)
    other = sorted(path.name for path in folder.glob("*.safetensors"))
    if other:
        raise InputError(
            f"model folder {folder} has {other[0]} but neither {SINGLE_FILE} nor {SHARD_INDEX}"
        )
    pickles = sorted(path.name for pattern in PICKLE_PATTERNS for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"model folder {folder} has only {pickles[0]}: pickle weights are refused; "
            "convert to safetensors"
        )
    raise InputError(f"model folder {folder} has no weights; expected {SINGLE_FILE}")


def _shards(folder: Path) -> list[Path]:
    index = folder / SHARD_INDEX
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no 'weight_map' from tensor names to shard files")
    names = sorted(map(str, set(weight_map.values())))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index} names shard {name!r} outside the model folder")
        if not (folder / name).is_file():
            raise InputError(f"model folder {folder} lacks shard {name}, which {index.name} names")
    return [folder / name for name in names]


def check_files(folder: Path) -> None:
    """Refuse weights that are damaged or of other sizes than configured, by their headers alone.

    Raises:
        InputError: what `read_model` finds before it reads them.
    """
    config, files = hf_config(folder), weight_files(folder)
    try:
        stored = plain_weights.tensor_headers(files)
        plain_weights.check_stored(stored, folder)
        plain_weights.check_sizes(config, stored, folder)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"model folder {folder} cannot be loaded: {first_line(error)}") from error


def read_model(folder: Path, *, dtype: torch.dtype, device_map: Any = None) -> PreTrainedModel:
    """The causal language model of a folder, with eager attention and in evaluation mode.

    Raises:
        InputError: damaged weights or config, an architecture without a causal language model,
            weights that leave some parameter at its random initial value or have no parameter to
            go to, that are quantised or not finite.
    """
    config = hf_config(folder)
    files = weight_files(folder)
    try:
        stored = plain_weights.tensor_headers(files)
        plain_weights.check_stored(stored, folder)
        plain_weights.check_sizes(config, stored, folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in words of ours
            device_map=device_map,
        )
    except InputError:
        raise
    except Exception as error:  # damaged weights, missing libraries, impossible configurations
        raise InputError(f"model folder {folder} cannot be loaded: {first_line(error)}") from error
    model, report = loaded
    for key, there, wanted in sorted(report["mismatched_keys"]):
        raise InputError(
            f"weights in {folder}: {key} has shape {list(there)}, by config.json {list(wanted)}"
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise InputError(
            f"weights in {folder} lack {len(missing)} parameters of the model, first {missing[0]}"
        )
    plain_weights.check_none_left_over(model, report["unexpected_keys"], stored, folder)
    plain_weights.check_values(model, folder)
    return model.eval()


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The folder's tokenizer, or None when it has none.

    Raises:
        InputError: tokenizer files that cannot be read.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception on damaged files
        why = _marked(folder) or first_line(error)
        raise InputError(f"tokenizer in {folder} cannot be read: {why}") from error
