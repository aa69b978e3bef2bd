"""`focus_text` and `confusion_text`: what a chain says so far, against anchors and near misses.

Of the chain up to each step (the cumulative prefix), e(.) an embedding, centred by the document's:

    focus_text      cos(e(prefix), e(anchors)), anchors: the decision's evidence and the texts of
                    its family
    confusion_text  cos(e(prefix), e(near misses))

(Saha Roy, Wallace and Aslam, arXiv 2606.06840.) Near misses resemble the right label, and so does
what is said of it: a high `confusion_text` is not yet a confusion. So beside each stands the same
cosine with what it should be told from, `focus_text_far` (texts of the other families) and
`confusion_text_gold` (the gold label's text); their differences are the contrasts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.chains.embeddings import Embedding
from workbench.analysis.chains.reading import ChainReading, Decision
from workbench.analysis.statistics import bootstrap, mean_statistic
from workbench.errors import InputError, require
from workbench.prompts.chain import decoded

TEXT_READOUTS = ("focus_text", "confusion_text")
CONTRASTS = {"focus_text": "focus_text_far", "confusion_text": "confusion_text_gold"}
"""What each is to be told from."""


def with_contrasts(values: pd.DataFrame) -> pd.DataFrame:
    """The same with each text readout less what it is to be told from, as `…_contrast`."""
    differences = {f"{name}_contrast": values[name] - values[of] for name, of in CONTRASTS.items()}
    return values.assign(**differences)


SHARES = tuple(round(0.05 * step, 2) for step in range(21))
"""Places along the chain, 0 to 1, at which means are taken."""


def text_values(
    embedding: Embedding, reading: ChainReading, tokenizer: Any, model: str
) -> pd.DataFrame:
    """Text Focus and Confusion of every decision after every step of its chain.

    Step 0 is the chain's first token. Columns: model, id, event, step, share (of the steps),
    focus_text, focus_text_far, confusion_text, confusion_text_gold. A value whose texts are missing
    is NaN.

    Raises:
        InputError: an empty text.
    """
    document = tokenizer.decode(reading.tokens[: reading.start])
    text, token_ends = decoded(tokenizer, list(reading.tokens[reading.start :]))
    steps = list(reading.ends) or [reading.n_chain]
    texts = [*reading.evidence_texts, *reading.texts]
    centre = embedding.of_texts([document])[0]
    vectors = embedding.of_texts(texts) - centre
    ends = [token_ends[0], *(token_ends[end - 1] for end in steps)]
    prefixes = embedding.of_beginnings(text, ends) - centre
    n_evidence = len(reading.evidence_texts)
    evidence, labels = vectors[:n_evidence], vectors[n_evidence:]
    frames = []
    for decision in reading.decisions:
        groups = _groups(reading, decision, evidence, labels)
        columns = {name: _cosines(prefixes, group) for name, group in groups.items()}
        frame = pd.DataFrame({"step": range(len(prefixes))} | columns)
        frames.append(frame.assign(event=decision.event, share=frame["step"] / len(steps)))
    table = pd.concat(frames, ignore_index=True).assign(model=model, id=reading.id)
    return table.reindex(columns=["model", "id", "event", "step", "share", *_columns()])


def _columns() -> list[str]:
    return [name for pair in CONTRASTS.items() for name in pair]


def _groups(
    reading: ChainReading,
    decision: Decision,
    evidence: Float[Tensor, "phrase d"],
    labels: Float[Tensor, "label d"],
) -> dict[str, Float[Tensor, "text d"]]:
    family = reading.labels[decision.gold].family
    own = [at for at, label in enumerate(reading.labels) if label.family == family]
    far = [at for at, label in enumerate(reading.labels) if label.family != family]
    phrases = decision.evidence
    return {
        "focus_text": torch.cat([evidence[list(phrases)], labels[own]]),
        "focus_text_far": labels[far],
        "confusion_text": labels[list(decision.near)],
        "confusion_text_gold": labels[[decision.gold]],
    }


def _cosines(prefixes: Float[Tensor, "step d"], group: Float[Tensor, "text d"]) -> np.ndarray:
    if not len(group):
        return np.full(len(prefixes), np.nan)
    mean = group.mean(dim=0, keepdim=True)
    return torch.nn.functional.cosine_similarity(prefixes, mean, dim=-1).double().numpy()


def along(
    values: pd.DataFrame,
    quantities: Sequence[str],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    shares: Sequence[float] = SHARES,
) -> pd.DataFrame:
    """Means along the chain, by share of its steps, with 95 % intervals over prompts.

    `values` has a row per model, id, event and step (see `text_values`, `chain_values`); each event
    keeps its last step's value until the next. Columns: model, quantity, t, value, low, high, n
    (events that have the quantity).

    Raises:
        InputError: columns missing, or no row.
    """
    require(values, "chain values", ["model", "id", "event", "share", *quantities])
    if values.empty:
        raise InputError("the table of chain values is empty")
    rows = []
    for model, part in values.groupby("model", sort=False):
        for quantity in quantities:
            known = part.dropna(subset=[quantity])
            curves, ids = [], []
            for key, event in known.groupby(["id", "event"], sort=False):
                assert isinstance(key, tuple)
                event = event.sort_values("share")
                at = np.searchsorted(event["share"].to_numpy(float) - 1e-9, shares, "right") - 1
                curves.append(event[quantity].to_numpy(float)[at.clip(min=0)])
                ids.append(str(key[0]))
            if not curves:
                continue
            found = bootstrap(
                mean_statistic,
                torch.from_numpy(np.stack(curves)),
                prompt_ids=ids,
                n_resamples=n_resamples,
                seed=seed,
                labels=["along", quantity],
            )
            rows += [
                {"model": model, "quantity": quantity, "t": t, "value": float(value)}
                | {"low": float(low), "high": float(high), "n": len(ids)}
                for t, value, low, high in zip(shares, *found, strict=True)
            ]
    return pd.DataFrame(rows)
