"""Large models: a student under FSDP, and what its losses need of weights that are spread.

Blocks gather their weights when they run; what heads write is read then. Terms that compare what
is added to logits, and hidden states, use weights between forward and backward: of the last norm,
the unembedding and learnt projections. FSDP2 keeps these whole as long, if it is told to.
"""

from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule

from workbench.distill.losses.compiling import SMALL
from workbench.distill.reading.wanted import Wanted
from workbench.errors import InputError


def fuse_attention(model: Any) -> None:
    """Let a large model that holds whole attention maps compute attention by torch's own kernel.

    Its maps alone are gigabytes a layer. Models that the kernel is not known to fit stay as they
    are: those that cap scores, and those of which transformers says so.
    """
    config = model.config.get_text_config()
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    fits = getattr(model, "_supports_sdpa", False) and not capped
    if fits and config._attn_implementation == "eager" and model.num_parameters() > SMALL:
        model.set_attn_implementation("sdpa")


def check_sharding(trainer: Any, wanted: Wanted) -> None:
    """Refuse what a trainer's way of spreading the student over devices does not allow.

    Raises:
        InputError: weights are wanted outside of the forward, and it is not FSDP2.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if (wanted.scale or wanted.hidden) and getattr(plugin, "fsdp_version", 1) != 2:
        raise InputError(
            "terms that compare what is added to logits, or hidden states, need whole weights "
            "outside of the forward; shard the student with fsdp_version: 2, or give "
            "--interaction 0"
        )


def keep_ends_whole(model: nn.Module, attentions: list[nn.Module]) -> None:
    """Let what is no block stay whole from forward to backward, under FSDP2.

    Args:
        model: as it was prepared for training.
        attentions: its attention modules; a part that holds any is a block.
    """
    there = set(attentions)
    for part in model.modules():
        if not isinstance(part, FSDPModule):
            continue
        if part is model or there.isdisjoint(part.modules()):
            part.set_reshard_after_forward(False, recurse=False)
