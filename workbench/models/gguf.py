"""Models in one GGUF file, dequantised: their facts, their weights.

transformers reads the file, but only what its table for an architecture names: rotary scaling,
biases or experts that it does not know it leaves out without a word. So the architectures are those
whose reading the tests compare with plain models, and what a file states must be found again in the
configuration, and every value in the model.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from workbench.errors import InputError, first_line, shorten
from workbench.files import reading
from workbench.models import plain_weights
from workbench.models.extras import extra_package

ARCHITECTURES = ("llama", "qwen2", "qwen3")
INSTEAD = "give a model folder in safetensors form"
# What a file may state of its architecture, and where transformers' configuration says it.
_STATED = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}


@dataclass(frozen=True)
class GgufFacts:
    """What a GGUF file says of itself; None where it is silent. `tensors` counts storage types."""

    architecture: str
    name: str | None
    licence: str | None
    parameters: int
    context_length: int | None
    tensors: dict[str, int]


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file whose metadata has been read, with a `gguf.GGUFReader`; its weights have not."""

    path: Path
    reader: Any

    def stated(self, key: str) -> Any:
        """A value of the metadata; None where there is none.

        Raises:
            InputError: a text that is not UTF-8.
        """
        field = self.reader.get_field(key)
        try:
            return None if field is None else field.contents()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: {key[:60]!r} is not UTF-8 text") from error

    @property
    def parameters(self) -> int:
        """How many values all its tensors hold."""
        return sum(int(tensor.n_elements) for tensor in self.reader.tensors)

    def facts(self) -> GgufFacts:
        """What it says of itself."""
        architecture = self.stated("general.architecture")
        kinds = Counter(tensor.tensor_type.name for tensor in self.reader.tensors)
        return GgufFacts(
            architecture=architecture,
            name=self.stated("general.name"),
            licence=self.stated("general.license"),
            parameters=self.parameters,
            context_length=self.stated(f"{architecture}.context_length"),
            tensors=dict(kinds.most_common()),
        )


def open_gguf(path: Path) -> GgufFile:
    """A whole file of a known architecture, opened; this takes some seconds.

    Raises:
        InputError: the `gguf` package is not installed; the file is no GGUF, damaged, cut off, in
            the other byte order, one part of a model, or of an architecture that is not supported.
    """
    package = extra_package("gguf", path)
    with reading(path), path.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise InputError(f"{path} is no GGUF file: it does not begin with GGUF")
    try:
        reader = package.GGUFReader(path)
    except Exception as error:  # whatever numpy says to bytes that are not there
        raise InputError(
            f"{path} is a GGUF file that is damaged or cut off: {first_line(error)}"
        ) from error
    if reader.endianess != package.GGUFEndian.LITTLE:
        raise InputError(f"{path} is a big-endian GGUF file, which is not supported; {INSTEAD}")
    file = GgufFile(path, reader)
    number = re.search(r"-(\d{5})-of-(\d{5})\.gguf$", path.name)
    parts = file.stated("split.count") or (number and int(number[2])) or 1
    if parts > 1:
        raise InputError(
            f"{path} is one of {parts} parts of a model; join them (llama-gguf-split --merge)"
        )
    architecture = file.stated("general.architecture")
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"{path}: architecture {shorten(architecture)} is not read from GGUF (only "
            f"{', '.join(ARCHITECTURES)}); {INSTEAD}"
        )
    return file


@contextmanager
def apart(file: GgufFile) -> Iterator[dict[str, Any]]:
    """What tells transformers to read this file and nothing that may lie beside it."""
    with TemporaryDirectory() as folder:
        (Path(folder) / file.path.name).symlink_to(file.path.resolve())
        yield {
            "pretrained_model_name_or_path": folder,
            "gguf_file": file.path.name,
            "local_files_only": True,
        }


def gguf_config(file: GgufFile) -> PreTrainedConfig:
    """The configuration of a GGUF file, as transformers reads it.

    Raises:
        InputError: transformers reads the file otherwise than it states, in part, or not at all.
    """
    try:
        with apart(file) as where:
            config = AutoConfig.from_pretrained(**where, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"{file.path} cannot be loaded: {first_line(error)}") from error
    _check_stated(file, config)
    return config


def read_gguf(file: GgufFile, *, dtype: torch.dtype, device_map: Any = None) -> PreTrainedModel:
    """The dequantised model of a GGUF file, with eager attention and in evaluation mode.

    Values are dequantised in float32 and then rounded to `dtype`.

    Raises:
        InputError: transformers reads the file otherwise than it states, in part, or not at all.
    """
    path = file.path
    config = gguf_config(file)
    # Its bar does not ask transformers' switch for bars; the one that does takes its place.
    vars(import_module("transformers.modeling_gguf_pytorch_utils"))["tqdm"] = logging.tqdm
    try:
        with apart(file) as where:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                **where,
                config=config,
                trust_remote_code=False,
                dtype=dtype,
                attn_implementation="eager",
                quantization_config=GgufConfig(dequantize=True),  # packed ones cannot be saved
                output_loading_info=True,
                device_map=device_map,
            )
    except Exception as error:  # shapes that do not fit, types without a dequantiser, memory
        raise InputError(f"{path} cannot be loaded: {first_line(error)}") from error
    model, report = loaded
    if report["missing_keys"]:
        raise InputError(f"{path} has no weights for {min(report['missing_keys'])}")
    placed = sum(parameter.numel() for parameter in model.parameters())
    if placed != file.parameters:
        raise InputError(
            f"{path} holds {file.parameters:,} values, the model that transformers makes of it "
            f"{placed:,}; {INSTEAD}"
        )
    plain_weights.check_values(model, path)
    return model.eval()


def _check_stated(file: GgufFile, config: PreTrainedConfig) -> None:
    path, reader = file.path, file.reader
    if any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
        raise InputError(f"{path} scales its rotary positions, which is not read; {INSTEAD}")
    plain_weights.check_counts(config, path)
    values = config.to_dict()
    values |= values.get("rope_parameters") or {}
    heads = config.num_attention_heads
    if not isinstance(heads, int):
        raise InputError(f"{path} has layers of different numbers of heads; {INSTEAD}")
    # Not every configuration names the width of a head; it is then this.
    values.setdefault("head_dim", config.hidden_size // heads)
    prefix = f"{file.stated('general.architecture')}."
    for key in reader.fields:
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix)
        said: Any = file.stated(key)
        read: Any = values.get(_STATED.get(name, ""))
        if name == "rope.scaling.type" and said == "none":
            continue
        if name not in _STATED:
            raise InputError(
                f"{path} states {key[:60]!r}, which transformers does not read; {INSTEAD}"
            )
        numbers = isinstance(said, int | float) and isinstance(read, int | float)
        if not numbers or not math.isclose(said, read, rel_tol=1e-6):
            raise InputError(
                f"{path} states {key!r} {shorten(said)}, transformers reads {shorten(read)}; "
                f"{INSTEAD}"
            )
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    layers = len({name.split(".")[1] for name in shapes if name.startswith("blk.")})
    if layers != config.num_hidden_layers:
        raise InputError(f"{path} states {config.num_hidden_layers} layers and has {layers}")
    width, rows = [*shapes.get("token_embd.weight", ()), 0, 0][:2]
    if width != config.hidden_size:
        raise InputError(f"{path} states a width of {config.hidden_size}, embeddings have {width}")
    tokens = len(file.stated("tokenizer.ggml.tokens") or ())
    if rows < tokens:
        raise InputError(f"{path} has {tokens} tokens and embeddings for {rows}")
