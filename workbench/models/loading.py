"""Models as users have them, brought into memory.

A model is a folder in Hugging Face form, a folder with a peft adapter (which is merged into its
base), one GGUF file (which is dequantised), or a hub id, which is first brought to such a folder.
Everything a user can get wrong ends in one `InputError` line.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import InputError, first_line
from workbench.models import adapters, catalogue, folders, sources
from workbench.models.adapters import AdapterInfo
from workbench.models.gguf import GgufFile, gguf_config, open_gguf, read_gguf
from workbench.models.gguf_tokenizer import read_gguf_tokenizer

# Narrow on purpose: a repository may hold the same weights several times, in other formats.
HUB_PATTERNS = [
    *("*.json", "model*.safetensors", adapters.WEIGHTS_FILE),
    *("tokenizer*", "vocab*", "merges.txt", "*.jinja"),
]


@dataclass(frozen=True)
class BaseInfo:
    """The model that an adapter was merged into."""

    name: str
    revision: str | None
    weights_sha256: str


@dataclass(frozen=True)
class Provenance:
    """Where weights come from: their hash, and what was done to them when they were loaded."""

    weights_sha256: str
    """Of their files; of a merged model over the base's hash, the adapter and its settings."""
    base: BaseInfo | None = None
    adapter: AdapterInfo | None = None
    quantisation: dict[str, int] | None = None
    """Tensors by storage type, of a GGUF file that was dequantised here or when it was fetched."""


def model_folder(source: str | Path, revision: str | None = None) -> Path:
    """Folder or GGUF file that holds the model.

    `source` itself where it is there, else that of the pretrained model of this name, else a
    snapshot of the hub repository, which may name its revision: ORG/NAME@REVISION.

    Raises:
        InputError: a path that is neither, a pretrained model that was not fetched, a hub id that
            cannot be, what `folders`, `adapters` or `gguf` refuse, or a revision that is given
            twice or of what is on this machine.
    """
    folder = _local_folder(source, revision)
    _whole(folder)
    return folder


def _local_folder(source: str | Path, revision: str | None) -> Path:
    folder = sources.local_folder(source, revision)
    if folder is not None:
        return folder
    name, revision = sources.at_revision(source, revision)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_PATTERNS))
    except (OSError, ValueError) as error:  # no network, unknown or gated repository, bad id
        names = "" if "/" in name else f", none of {', '.join(sources.KNOWN)},"
        close = get_close_matches(name, sources.KNOWN, n=1)
        near = "".join(f"; did you mean {one}?" for one in close)
        raise InputError(
            f"model {str(source)!r} is no local folder{names} and cannot be fetched from the hub: "
            f"{first_line(error)}{near}"
        ) from error


def recorded_name(
    source: str | Path, folder: Path, revision: str | None = None
) -> tuple[str, str | None]:
    """Name and revision to record for a model: what the user called it, not where a link leads.

    `folder` is what `model_folder` gave. A folder of the hub's cache is recorded as the hub names
    it: `models--ORG--NAME/snapshots/HASH` is ORG/NAME at HASH.
    """
    if not sources.exists(Path(source).expanduser()):
        name, revision = sources.at_revision(source, revision)
        commit = folder.name if folder.parent.name == "snapshots" else None
        return name, revision or commit
    given = Path(os.path.abspath(Path(source).expanduser()))  # noqa: PTH100, resolve follows links
    repository = given.parent.parent.name
    if given.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/", 1), given.name
    return given.name, revision


def _opened(path: Path) -> GgufFile:
    """The file, whose metadata takes seconds to read, as it was opened last if it is unchanged."""
    status = path.stat()
    return _open(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _open(path: Path, *unchanged: int) -> GgufFile:
    return open_gguf(path)


def _whole(folder: Path) -> Path:
    """The folder or file whose configuration a model has: an adapter's is its base's.

    Raises:
        InputError: a configuration that is refused.
    """
    if sources.is_gguf(folder):
        _opened(folder)
        return folder
    if sources.is_adapter(folder):
        return base_of(folder)[1]
    folders.read_config(folder)
    return folder


def base_of(folder: Path) -> tuple[tuple[str, str | None], Path]:
    """Recorded name and revision of an adapter's base, and its folder.

    Raises:
        InputError: it is not there, or is an adapter itself.
    """
    settings = adapters.read_settings(folder)
    named = settings["base_model_name_or_path"]
    beside = folder / Path(named).expanduser()  # an absolute path stays what it is
    try:
        source = beside if sources.exists(beside) else named
        revision = None if sources.exists(Path(source)) else settings.get("revision")
        base = _local_folder(source, revision)
        if sources.is_adapter(base):
            raise InputError(f"{base} is an adapter itself; merge that one first")
        _whole(base)
    except InputError as error:
        raise InputError(
            f"base_model_name_or_path in {folder / adapters.CONFIG_FILE}: {error}"
        ) from error
    return recorded_name(source, base, revision), base


def provenance(folder: Path) -> Provenance:
    """Hash and origin of the weights of a model, which are not read into memory.

    Raises:
        InputError: there are none, or an adapter's base is not there.
    """
    if sources.is_gguf(folder):
        return Provenance(files_sha256([folder]), quantisation=_opened(folder).facts().tensors)
    if not sources.is_adapter(folder):
        digest = files_sha256(folders.weight_files(folder))
        return Provenance(digest, quantisation=catalogue.quantisation_of(folder))
    named, base = base_of(folder)
    below = provenance(base)
    return Provenance(
        adapters.merged_sha256(folder, below.weights_sha256),
        BaseInfo(*named, below.weights_sha256),
        adapters.describe(folder, recorded_name(folder, folder)[0]),
        below.quantisation,
    )


def weights_sha256(folder: Path) -> str:
    """Hash of the weights of a model, as `provenance` has it."""
    return provenance(folder).weights_sha256


def hf_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a model, as transformers reads it.

    Raises:
        InputError: as `folders.hf_config` and `gguf_config`.
    """
    whole = _whole(folder)
    return gguf_config(_opened(whole)) if sources.is_gguf(whole) else folders.hf_config(whole)


def read_model(folder: Path, *, dtype: torch.dtype, device_map: Any = None) -> PreTrainedModel:
    """The causal language model of a checked source, with eager attention and in evaluation mode.

    Eager attention is the only implementation whose patterns can be read and edited. An adapter is
    merged in float32 at least.

    Raises:
        InputError: as `folders.read_model`, `read_gguf` and `adapters.merge`.
    """
    if sources.is_gguf(folder):
        return read_gguf(_opened(folder), dtype=dtype, device_map=device_map)
    whole = _whole(folder)
    if whole == folder:
        return folders.read_model(folder, dtype=dtype, device_map=device_map)
    wide = torch.promote_types(dtype, torch.float32)
    merged: Any = adapters.merge(read_model(whole, dtype=wide), folder)
    if dtype == wide and device_map is None:
        return merged
    placed = type(merged).from_pretrained(  # knows which parts stay in float32, and how to spread
        None,
        config=merged.config,
        state_dict=merged.state_dict(),
        dtype=dtype,
        device_map=device_map,
        attn_implementation="eager",
        trust_remote_code=False,
    )
    placed.generation_config = merged.generation_config
    return placed.eval()


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """A model's tokenizer, or None when it has none; of an adapter its own, else its base's.

    Raises:
        InputError: tokenizer files that cannot be read.
    """
    if sources.is_gguf(folder):
        return read_gguf_tokenizer(_opened(folder))
    own, whole = folders.read_tokenizer(folder), _whole(folder)
    return read_tokenizer(whole) if own is None and whole != folder else own


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A floating dtype from its name.

    Raises:
        InputError: the name is no floating dtype of torch.
    """
    parsed = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(parsed, torch.dtype) or not parsed.is_floating_point:
        raise InputError(f"dtype {dtype!r} is not one of float32, bfloat16, float16, float64")
    return parsed


def parse_device(device: str | torch.device) -> torch.device:
    """A device that this machine can put a tensor on.

    Raises:
        InputError: unknown device, one that is not there, or one that holds no values.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch built without it
        raise InputError(f"device {device!s} cannot be used: {first_line(error)}") from error
    if found.type == "meta":
        raise InputError("device meta cannot be used: it holds shapes, no values")
    return found


def files_sha256(paths: Iterable[Path]) -> str:
    """Hash over the bytes of files, one after the other in name order."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash over the bytes of tensors in name order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def bundled_model_path() -> Path:
    """Folder of the model that comes with the repository.

    Raises:
        InputError: this installation has none.
    """
    folder = Path(__file__).resolve().parents[2] / "data" / "organism"
    if not (folder / "config.json").is_file():
        raise InputError(
            "the bundled model is not beside this installation: clone the repository, train the "
            "model with `workbench organism --out FOLDER`, or name another one with --model"
        )
    return folder
