"""Adapters of the peft library, merged into their base model before anything is computed.

An adapter's folder holds `adapter_config.json` and `adapter_model.safetensors`. peft leaves out
what does not fit (it warns of a weight without a place, and of none for a place) and merges into
embeddings that a model uses twice. So all weights must have gone somewhere, and the merged model
must compute what base and adapter compute side by side.
"""

import json
import re
import warnings
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.errors import InputError, first_line, shorten
from workbench.files import file_sha256, read_json
from workbench.models import plain_weights
from workbench.models.extras import extra_package

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TRAINING_RECORD = "training.json"
ADAPTING_RECORD = "adapting.json"
"""Of adapters for a label set, which are asked as other models are."""
KINDS = (
    *("LORA", "ADALORA", "LOHA", "LOKR", "VERA", "RANDLORA", "MISS", "HRA", "OFT", "ROAD"),
    *("FOURIERFT", "SHIRA", "IA3", "LN_TUNING", "TRAINABLE_TOKENS"),
)
"""Kinds that are merged; tested one by one."""
ELSEWHERE = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "peft_version",
    "revision",
    "task_type",
}
"""Settings that change nothing about the merged weights."""
N_TOKENS = 12
TOLERANCE = 1e-4
"""Difference that rounding explains, as a part of the range of logits."""


@dataclass(frozen=True)
class AdapterInfo:
    """Which adapter was merged: hash of its file, its kind, and its rank where it has one."""

    name: str
    sha256: str
    kind: str
    rank: int | None
    trained_on: str | None = None
    """Hash of the base's weights that it was trained on, where its training record says so."""


def read_settings(folder: Path) -> dict[str, Any]:
    """The folder's `adapter_config.json`.

    Raises:
        InputError: one of the adapter's two files is missing, or the configuration is of no kind
            that is merged into a causal language model, or does not name its base.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise InputError(
                f"adapter {folder} has no {name}; both {CONFIG_FILE} and {WEIGHTS_FILE} are "
                "needed, and pickled weights are refused"
            )
    whole = [path.name for path in sorted(folder.glob("model*.safetensors*"))]
    if whole:
        raise InputError(
            f"{folder} holds an adapter and {whole[0]}; put the one that is meant into a folder "
            "of its own"
        )
    path = folder / CONFIG_FILE
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path} must hold a JSON object, not a {type(settings).__name__}")
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{path}: base_model_name_or_path names no base model")
    kind = settings.get("peft_type")
    if kind not in KINDS:
        raise InputError(
            f"{path}: peft_type {shorten(kind)} cannot be merged into a base model; these can: "
            f"{', '.join(KINDS)}"
        )
    if settings.get("task_type") not in (None, "CAUSAL_LM"):
        raise InputError(
            f"{path}: task_type {shorten(settings['task_type'])} is not that of a causal language "
            "model, CAUSAL_LM"
        )
    if settings.get("megatron_config"):
        raise InputError(f"{path}: megatron_config is not supported; it names code to import")
    return settings


def describe(folder: Path, name: str) -> AdapterInfo:
    """What a result records of the adapter in a checked folder."""
    settings = read_settings(folder)
    kind = "DORA" if settings.get("use_dora") else settings["peft_type"]
    rank = settings.get("target_r") or settings.get("r")  # AdaLoRA's is what it comes down to
    return AdapterInfo(
        name, file_sha256(folder / WEIGHTS_FILE), kind, rank or None, _trained_on(folder)
    )


def _trained_on(folder: Path) -> str | None:
    names = (TRAINING_RECORD, ADAPTING_RECORD)
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    record = read_json(path) if path else None
    said = record.get("base_sha256") if isinstance(record, dict) else None
    return said if isinstance(said, str) and re.fullmatch("[0-9a-f]{64}", said) else None


def save(
    model: Any,
    folder: Path,
    *,
    base: str,
    revision: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write the LoRA adapter of a peft model, and nothing else.

    Args:
        model: with the adapter.
        folder: to write.
        base: how the adapter names its base: as `loading.model_folder` takes it.
        revision: of the base.
        dtype: of what is written.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    state = {
        name: tensor.to(dtype) for name, tensor in model.state_dict().items() if "lora_" in name
    }
    model.save_pretrained(folder, state_dict=state)
    (folder / "README.md").unlink(missing_ok=True)


def merged_sha256(folder: Path, base: str) -> str:
    """Hash that stands for the merged weights: of the base's, the adapter's, and its settings."""
    settings = {k: v for k, v in read_settings(folder).items() if k not in ELSEWHERE}
    parts = (base, file_sha256(folder / WEIGHTS_FILE), json.dumps(settings, sort_keys=True))
    return sha256("\n".join(parts).encode()).hexdigest()


def merge(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base model with the adapter merged into its weights, in the base's dtype.

    The base is changed in place.

    Raises:
        InputError: peft is not installed or does not know a setting, the adapter does not fit the
            base, or the merged model computes otherwise than base and adapter side by side.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is checked
        try:
            return _merge(model, folder)
        except InputError:
            raise
        except Exception as error:  # each tuner has its own ways to fail
            raise InputError(
                f"adapter {folder} does not fit its base model: {first_line(error)}"
            ) from error


def _merge(model: Any, folder: Path) -> PreTrainedModel:
    peft = extra_package("peft", f"adapter {folder}")
    plain = _logits(model)
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = getattr(output, "weight", None) is embeddings.weight
    if tied:  # else what is added to one of them lands in both
        output.weight = nn.Parameter(output.weight.detach().clone())
    adapted: Any = peft.PeftModel(model, _config(peft, folder), autocast_adapter_dtype=False).eval()
    with adapted.disable_adapter():
        if _differ(_logits(adapted), plain):
            raise InputError(
                f"adapter {folder} begins by changing its base (init_lora_weights or "
                f"layer_replication in {CONFIG_FILE}), so it cannot be added to the plain one; "
                "merge it where it was trained (merge_and_unload) and save the whole"
            )
    left = _load(peft, adapted, folder)
    if tied:
        _load_both(adapted, embeddings.weight, output.weight, left)
    merged = unload(adapted, f"adapter {folder}")
    if tied:
        embeddings, output = merged.get_input_embeddings(), merged.get_output_embeddings()
        same = torch.equal(embeddings.weight, output.weight)
        if same:
            output.weight = embeddings.weight
        for config in (merged.config, merged.config.get_text_config()):
            config.tie_word_embeddings = same
    return merged


def unload(adapted: Any, what: str) -> Any:
    """The plain model that a peft model in evaluation becomes when its adapter is merged.

    Raises:
        InputError: it computes something else; `what` begins the message.
    """
    side_by_side = _logits(adapted)
    merged: Any = adapted.base_model.merge_and_unload().requires_grad_(True)
    if _differ(_logits(merged), side_by_side):
        raise InputError(
            f"{what} cannot be merged: the merged model has other logits than base and "
            "adapter side by side"
        )
    return merged


def _config(peft: Any, folder: Path) -> Any:
    """The adapter's configuration as peft has it; no setting is left out.

    Trainable, so that the adapter's own weights can be told from the base's.
    """
    settings = read_settings(folder)
    made = peft.PEFT_TYPE_TO_CONFIG_MAPPING[settings["peft_type"]]
    known = {field.name for field in fields(made)}
    unknown = [name for name, value in settings.items() if name not in known and value]
    if unknown:
        raise InputError(
            f"{folder / CONFIG_FILE}: setting {shorten(unknown[0])} is none of the installed peft "
            f"{peft.__version__}; install the version that wrote the adapter"
        )
    settings = {name: value for name, value in settings.items() if name in known}
    return made(**settings | {"inference_mode": False})


def _load(peft: Any, adapted: Any, folder: Path) -> set[str]:
    """Put the file's weights into the adapted model: all of them, and none is left as it began.

    Returns the names of the base's weights that the file does not hold: as a rule all.
    """
    stored = plain_weights.tensor_headers([folder / WEIGHTS_FILE])
    plain_weights.check_stored(stored, folder)
    own = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    weights = load_file(folder / WEIGHTS_FILE)
    endless = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if endless:
        raise InputError(f"adapter {folder}: {endless[0]} has values that are not finite")
    done = peft.set_peft_model_state_dict(adapted, weights)
    if done.unexpected_keys:
        raise InputError(
            f"adapter {folder} holds {done.unexpected_keys[0]}, for which its base model has no "
            f"place ({len(done.unexpected_keys)} such weights); is it of another model?"
        )
    missing = sorted(own.intersection(done.missing_keys))
    if missing:
        raise InputError(
            f"adapter {folder} lacks {len(missing)} weights that its {CONFIG_FILE} asks for, "
            f"first {missing[0]}"
        )
    return set(done.missing_keys)


@torch.no_grad()
def _load_both(adapted: Any, embedding: Tensor, output: Tensor, left: set[str]) -> None:
    """Of embeddings that are used twice, a file may hold the new ones once."""
    names = {id(weight): name for name, weight in adapted.named_parameters()}
    is_new = [names[id(weight)] not in left for weight in (embedding, output)]
    if is_new == [True, False]:
        output.copy_(embedding)
    elif is_new == [False, True]:
        embedding.copy_(output)


@torch.no_grad()
def _logits(model: Any) -> Float[Tensor, "position d_vocab"]:
    weight = model.get_input_embeddings().weight
    tokens = torch.arange(min(N_TOKENS, len(weight)), device=weight.device)
    return model(input_ids=tokens[None], use_cache=False).logits[0].float()


def _differ(logits: Tensor, wanted: Tensor) -> bool:
    off = float((logits - wanted).abs().max())
    return not off <= TOLERANCE * float(wanted.max() - wanted.min())  # true of NaN
