"""What heads do stage by stage of a chain, and where an early head looks: for figures.

The five stages are the paper's (chain tokens 1–10, 11–20, 21–35, 36–50, 51 and more), unless set
otherwise. A query counts once its decision's whole shortlist was listed, be it early or late.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.chains.head_parts import STAGED
from workbench.analysis.chains.reading import ChainReading, ChainSettings
from workbench.analysis.readout import widen
from workbench.analysis.statistics import bootstrap, mean_statistic
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.hooked import HookedModel

STAGES = ["layer", "head", "stage", "place", "quantity", "value", "low", "high", "n"]
ATTENTION = ["id", "layer", "head", "position", "text", "kind", "weight"]


def stage_table(
    readings: Sequence[ChainReading],
    parts: Sequence[pd.DataFrame],
    heads: Sequence[Head],
    given: ChainSettings,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means over decisions in each stage, with 95 % intervals over prompts; columns `STAGES`.

    Quantities: qk_shortlist (mean attention score, less the row's mean, at the gold label's places
    in the shortlist), qk_near (at the near misses'), cos_margin (cosine of the write and the
    gradient of the margin). n counts decisions; a stage without any has no row.
    """
    frames = []
    for reading, table in zip(readings, parts, strict=True):
        rows = table[table["part"].str.startswith("stage ")]
        frames.append(rows.assign(id=reading.id))
    every = pd.concat(frames, ignore_index=True).dropna(subset=["value"])
    found = []
    for layer, head in heads:
        own = every.loc[(every["layer"] == layer) & (every["head"] == head)]
        for place, stage in enumerate(given.stages):
            for quantity in STAGED:
                rows = own.loc[(own["group"] == place) & (own["part"] == f"stage {quantity}")]
                if rows.empty:
                    continue
                interval = bootstrap(
                    mean_statistic,
                    torch.tensor(rows["value"].to_numpy(float)),
                    prompt_ids=rows["id"].tolist(),
                    n_resamples=n_resamples,
                    seed=seed,
                    labels=["stages", quantity],
                )
                value, low, high = (float(end) for end in interval)
                found.append([layer, head, stage, place, quantity, value, low, high, len(rows)])
    return pd.DataFrame(found, columns=STAGES)


@torch.no_grad()
def early_attention(
    model: HookedModel,
    reading: ChainReading,
    heads: Sequence[Head],
    given: ChainSettings,
    tokenizer: Any,
) -> pd.DataFrame:
    """Mean attention of some heads at early queries, on every token of the document.

    Columns: `ATTENTION`; kind is "evidence", "relevant label", "other label" or "rest". Weights sum
    to 1 less what lies on the chain itself. It holds the document's tokens as text.

    Raises:
        InputError: no early token, or a head that the model does not have.
    """
    queries = [reading.query(at) for at in reading.early(given)]
    if not queries:
        raise InputError(f"chain {reading.id!r} has no early token")
    for layer, head in heads:
        model.check_head(layer, head)
    rows: dict[int, Tensor] = {}

    def keep(layer: int, pattern: Tensor, hook: Any) -> None:
        rows[layer] = widen(pattern[0][:, queries]).mean(dim=1).cpu()

    layers = sorted({layer for layer, _ in heads})
    hooks = [(f"blocks.{layer}.attn.hook_pattern", partial(keep, layer)) for layer in layers]
    tokens = torch.tensor([list(reading.tokens)], device=model.device)
    model.logits_at(tokens, [len(reading.tokens) - 1], hooks)
    kinds = ["rest"] * reading.start
    for label in reading.labels:
        kind = "relevant label" if label.family in reading.relevant else "other label"
        for span in label.document:
            kinds[slice(*span)] = [kind] * (span[1] - span[0])
    for span in reading.evidence:
        kinds[slice(*span)] = ["evidence"] * (span[1] - span[0])
    texts = [tokenizer.decode([token]) for token in reading.tokens[: reading.start]]
    frames = [
        pd.DataFrame({"position": range(reading.start), "text": texts, "kind": kinds}).assign(
            id=reading.id, layer=layer, head=head,
            weight=rows[layer][head, : reading.start].double().numpy(),
        )
        for layer, head in heads
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True).reindex(columns=ATTENTION)
