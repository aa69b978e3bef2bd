"""Batches as terms read them: those of `stream.Collator`, and stock ones of Hugging Face."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from workbench.distill.losses.losses import IGNORED
from workbench.errors import InputError

_KEYS = (
    *("input_ids", "labels", "weights", "length", "question"),
    *("option_spans", "option_tokens", "evidence", "decisions"),
)
PHASES = (
    *("early", "early_decision", "late", "late_decision", "late_option"),
    *("shortlist", "near", "gold", "near_options"),
)
"""Places in chains; they are taken out of a batch if no term reads them, so that nothing is read of
the models there."""
_REFUSED = ("position_ids", "inputs_embeds", "cu_seq_lens_q", "cu_seq_lens_k", "seq_idx")
"""What would change the models' outputs, and is not handed on to them."""


def completed(
    batch: Mapping[str, Tensor], needs: Mapping[str, Collection[str]]
) -> Mapping[str, Tensor]:
    """A batch with all keys that `positions.Marks` reads, and without places that no term reads.

    A stock batch has `input_ids`, `labels` (IGNORED where no loss is taken) and, where it is
    padded, `attention_mask`, each [batch, token]; then `length`, `question` (tokens before the
    first label), `weights` and `targets` follow from these. Places that are missing are none.

    Args:
        batch: of any collator.
        needs: keys that each term reads, by its name.

    Raises:
        InputError: a key that a term needs is missing, `attention_mask` is not [batch, token] or
            masks anything but padding on the right, or the batch holds packed sequences.
    """
    read = {name for keys in needs.values() for name in keys}
    unread = [name for name in PHASES if name in batch and name not in read]
    if unread:
        batch = {name: value for name, value in batch.items() if name not in unread}
    if all(name in batch for name in (*_KEYS, *(name for name in PHASES if name in read))):
        return batch
    for name in _REFUSED:
        if name in batch:
            raise InputError(f"batches have {name}, which is not read; leave it out, do not pack")
    for name in (*_KEYS, *PHASES):
        users = [term for term, keys in needs.items() if name in keys]
        if name not in batch and (users or name == "input_ids"):
            terms = f"loss term {users[0]} needs" if users else "training needs"
            instead = "; say it of the examples, or leave the term out (weight 0)" if users else ""
            raise InputError(f"{terms} {name!r}, and batches have no such key{instead}")
    ids = batch["input_ids"]
    n, width = ids.shape
    found = {name: value for name, value in batch.items() if name != "attention_mask"}
    if "length" not in found:
        found["length"] = _lengths(batch.get("attention_mask"), ids)
    found.setdefault("labels", torch.full_like(ids, IGNORED))
    labelled = found["labels"] != IGNORED
    if "question" not in found:
        places = torch.arange(width, device=ids.device)
        first = torch.where(labelled.any(dim=1), labelled.int().argmax(dim=1), found["length"])
        found["question"] = first
        real = places < found["length"][:, None]
        found["targets"] = torch.zeros_like(labelled)
        found["targets"][:, :-1] = (labelled & real)[:, 1:]
    found.setdefault("weights", labelled.float())
    found.setdefault("option_spans", ids.new_zeros(n, 1, 2))
    found.setdefault("option_tokens", ids.new_zeros(found["option_spans"].shape[:2]))
    found.setdefault("decisions", ids.new_full((n, 1), -1))
    found.setdefault("evidence", ids.new_zeros(*found["decisions"].shape, 2))
    return found


def _lengths(mask: Tensor | None, ids: Tensor) -> Tensor:
    if mask is None:
        return torch.full_like(ids[:, 0], ids.shape[1])
    if mask.shape != ids.shape or bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise InputError(
            "attention_mask must be [batch, token] and mask padding on the right alone; give the "
            "tokenizer padding_side='right'"
        )
    return mask.long().sum(dim=1)
