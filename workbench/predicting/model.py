"""A model as transformers runs it: checked as any other, with the quickest attention it has.

`HookedModel` makes every activation readable, and pays for it. Predictions need logits alone.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformer_lens.utilities.devices import get_device

from workbench.errors import InputError
from workbench.models import loading, memory
from workbench.models.parity import RELATIVE, ROUNDINGS, run_plain
from workbench.models.rotary import switches
from workbench.processes import Processes
from workbench.progress import Reporter, pulse

QUICK = "sdpa"


@dataclass(frozen=True)
class PlainModel:
    """A Hugging Face causal language model, its tokenizer, and what is recorded of it.

    `load_plain` gives one with a tokenizer.
    """

    hf: Any
    tokenizer: Any
    folder: Path
    """Where it came from, or a GGUF file."""
    name: str
    revision: str | None
    weights_sha256: str

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.hf.get_input_embeddings().weight.dtype

    @property
    def config(self) -> Any:
        """The model's own configuration, of its language part where it has several."""
        return self.hf.config.get_text_config()

    @property
    def context(self) -> int | None:
        """Longest sequence it has positions for; None where its configuration names none."""
        return getattr(self.config, "max_position_embeddings", None)

    @cached_property
    def switches(self) -> list[int]:
        """Lengths beyond which all positions are rotated otherwise, ascending."""
        return sorted(switches(self.config))

    @property
    def window(self) -> int | None:
        """Tokens that some layers look back over; None where all look at everything."""
        used = getattr(self.config, "use_sliding_window", True)
        return (getattr(self.config, "sliding_window", None) or None) if used else None


def load_plain(
    source: str | Path,
    *,
    dtype: torch.dtype | str = "float32",
    device: str | None = None,
    here: Processes | None = None,
    reporter: Reporter | None = None,
) -> PlainModel:
    """Load a model in any form that `loading` reads, with its tokenizer.

    Args:
        source: folder of a model or an adapter, GGUF file, name or hub id.
        dtype: of the weights.
        device: an accelerator if there is one; "auto" spreads the model over all of them.
        here: which of several processes this is: each takes the accelerator of its number.
        reporter: is told where the quickest attention is not taken.

    Raises:
        InputError: what `loading` and `memory` refuse, no tokenizer, or one model over all
            accelerators for several processes of a machine.
    """
    dtype = loading.parse_dtype(dtype)
    device = (here or Processes()).device(device)
    spread = device == "auto"
    target = None if spread else loading.parse_device(device or get_device())
    folder = loading.model_folder(source)
    tokenizer = loading.read_tokenizer(folder)
    if tokenizer is None:
        raise InputError(f"model {source} has no tokenizer to ask it with")
    if target is not None:
        memory.check_fits(loading.hf_config(folder), dtype, target, source)
    name, revision = loading.recorded_name(source, folder)
    digest = loading.weights_sha256(folder)
    hf: Any = loading.read_model(folder, dtype=dtype, device_map="auto" if spread else None)
    if target is not None:
        hf.to(target)
    why = _quicken(hf, name)
    if why and reporter is not None:
        reporter.say(f"model: {name} keeps {hf.config._attn_implementation} attention: {why}")
    for layer in _layers(hf):
        layer.register_forward_hook(lambda *_: pulse("layers"))
    return PlainModel(hf, tokenizer, folder, name, revision, digest)


def _quicken(hf: Any, name: str) -> str:
    """Take torch's own attention where it gives the same logits; else why not."""
    before = run_plain(hf, name)
    if getattr(hf.config.get_text_config(), "attn_logit_softcapping", None):
        return "its scores are capped"  # few tokens have none near the cap
    slow = hf.config._attn_implementation
    try:
        hf.set_attn_implementation(QUICK)
        after = run_plain(hf, name)
        if hf.config._attn_implementation != QUICK:
            return f"it has no other than {hf.config._attn_implementation}"
        off = float((after.logits - before.logits).abs().max())
    except (InputError, ValueError, ImportError, RuntimeError) as error:
        why = f"{QUICK} fails ({type(error).__name__})"
    else:
        spread = float(before.logits.max() - before.logits.min())
        wide = torch.finfo(hf.dtype).eps > torch.finfo(torch.float32).eps
        rounding = max(before.noise, after.noise, wide * spread / 100)
        if off <= RELATIVE * spread + ROUNDINGS * rounding:
            return ""
        why = f"its logits with {QUICK} differ by {off:.2g}"
    hf.set_attn_implementation(slow)
    return why


def _layers(hf: Any) -> list[Any]:
    lists = [part for part in hf.modules() if isinstance(part, nn.ModuleList)]
    count = getattr(hf.config.get_text_config(), "num_hidden_layers", None)
    return list(next((found for found in lists if len(found) == count), []))
