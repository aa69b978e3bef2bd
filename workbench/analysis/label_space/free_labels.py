"""Focus and Confusion at every token of a label that is written freely, and decoding of labels.

The softmax is over the tokens with which any label of the whole space goes on, and nothing else:
no list of candidates has a part in it. The label's own tokens are given (teacher forcing), so one
forward of prompt and label gives all its decisions. A counterfactual's later tokens are read after
the gold label's first ones: they say how soon the written text outweighs what the note says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessorList

from workbench.analysis.label_space.cases import FreeCase, FreeLabels
from workbench.analysis.label_space.constrained import LabelConstraint, read_labels
from workbench.analysis.label_space.label_events import LabelEvents, label_events
from workbench.analysis.statistics import bootstrap, mean_statistic
from workbench.errors import InputError, require
from workbench.labels.index import FAR, NEAR, LabelIndex
from workbench.models.greedy import generated, greedy_tokens
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import VARIANTS

COLUMNS = ["id", "event", "variant", "token_index", "label_share", "from_near", "n_options"]
COLUMNS += ["n_near", "n_far", "focus", "confusion"]

ALIGNMENTS = ("token", "share", "parting")
SHARES = 5
"""Parts that the length of a label is cut into."""


def free_trajectory(
    model: HookedModel, cases: Sequence[FreeCase], labels: FreeLabels
) -> pd.DataFrame:
    """Focus and Confusion at every token of the gold label where several tokens are allowed.

    One row per case, variant and such token. Columns: id, event, variant (clean, far, near),
    token_index (from 0; the last is the label's end), label_share (of the label's tokens, written
    before this one), from_near (token_index minus that of the token at which gold parts from the
    label that the near variant mentions), n_options, n_near, n_far (tokens allowed here, and those
    that lead to near labels and to far ones), focus, confusion. Without far tokens Focus is 1,
    without near ones Confusion is 0, whatever the model does.

    Raises:
        InputError: no cases, or tokens that the model cannot run.
    """
    if not cases:
        raise InputError("no labels to follow: give at least one case")
    rows = [row for case in cases for row in _case_rows(model, case, labels)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _case_rows(model: HookedModel, case: FreeCase, labels: FreeLabels) -> Iterator[dict[str, Any]]:
    clean = case.prompts["clean"]
    known = label_events(labels.index, clean, case.gold, case.golds, {case.gold: case.near})
    if not len(known):
        return
    label = labels.index.label_tokens(case.gold)
    near_label = labels.index.label_tokens(labels.number(case.labels["near"]))
    same = zip(label.tolist(), near_label.tolist(), strict=False)
    parts = next((i for i, (one, other) in enumerate(same) if one != other), len(label) - 1)
    counts = [
        (end - start, *(int((known.roles[start:end] == role).sum()) for role in (NEAR, FAR)))
        for start, end in zip(known.offsets[:-1].tolist(), known.offsets[1:].tolist(), strict=True)
    ]
    for variant in VARIANTS:
        prompt = case.prompts[variant]
        shift = len(prompt) - len(clean)
        events = replace(
            known,
            sequence=np.array([*prompt, *label[:-1].tolist()]),
            positions=known.positions + shift,
        )
        focus, confusion = events.focus_confusion(event_logits(model, events, case, labels.index))
        for at, (n_options, n_near, n_far) in enumerate(counts):
            place = int(events.positions[at]) - len(prompt) + 1
            yield {
                "id": case.id,
                "event": case.event,
                "variant": variant,
                "token_index": place,
                "label_share": place / (len(label) - 1),
                "from_near": place - parts,
                "n_options": n_options,
                "n_near": n_near,
                "n_far": n_far,
                "focus": float(focus[at]),
                "confusion": float(confusion[at]),
            }


@torch.no_grad()
def event_logits(
    model: HookedModel, events: LabelEvents, case: FreeCase, index: LabelIndex
) -> Float[np.ndarray, "event d_vocab"]:
    """Logits at the decisions of one label; the end token has those of all letters that end it.

    A letter that is also a word with which a label goes on counts as that word.

    Raises:
        InputError: tokens that the model cannot run.
    """
    sequence = events.sequence.tolist()
    model.check_sequences([sequence])
    tokens = torch.tensor([sequence], device=model.device)
    logits = model.logits_at(tokens, events.positions.tolist())[0].double().cpu()
    for at in range(len(events)):
        allowed = set(events.tokens[events.offsets[at] : events.offsets[at + 1]].tolist())
        ends = [token for token in case.ends if token not in allowed]
        logits[at, index.end] = logits[at, ends].logsumexp(0) if ends else -torch.inf
    return logits.numpy()


def free_summary(table: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Means of `free_trajectory` along the label, with 95 % intervals over prompts.

    Columns: align, variant, place, focus, focus_low, focus_high, n_focus, confusion,
    confusion_low, confusion_high, n_confusion (prompts). `place` is with align "token" the
    token's index, "share" the middle of a fifth of the label, "parting" the distance from the token
    at which the near variant's label parts from gold. Focus is averaged where far tokens are
    allowed, Confusion where near ones are; missing where that is nowhere.

    Raises:
        InputError: a column is missing, or no row.
    """
    require(table, "label tokens", COLUMNS)
    if table.empty:
        raise InputError("the table of label tokens is empty")
    share = (table["label_share"] * SHARES).astype(int).clip(upper=SHARES - 1)
    places = {
        "token": table["token_index"],
        "share": (share + 0.5) / SHARES,
        "parting": table["from_near"],
    }
    rows = []
    for align in ALIGNMENTS:
        for variant in VARIANTS:
            chosen = table.assign(place=places[align])[table["variant"] == variant]
            for place, here in chosen.groupby("place", sort=True):
                row: dict[str, Any] = {"align": align, "variant": variant, "place": place}
                for name, of in (("focus", "n_far"), ("confusion", "n_near")):
                    row |= _mean(pd.DataFrame(here[here[of] > 0]), name, n_resamples, seed)
                rows.append(row)
    return pd.DataFrame(rows)


def _mean(part: pd.DataFrame, name: str, n_resamples: int, seed: int) -> dict[str, Any]:
    ends = (name, f"{name}_low", f"{name}_high")
    if part.empty:
        return {**dict.fromkeys(ends, np.nan), f"n_{name}": 0}
    interval = bootstrap(
        mean_statistic,
        torch.tensor(part[name].to_numpy(float)),
        prompt_ids=part["id"].tolist(),
        n_resamples=n_resamples,
        seed=seed,
        labels=["free labels", name],
    )
    values = {end: float(value) for end, value in zip(ends, interval, strict=True)}
    return values | {f"n_{name}": len(set(part["id"]))}


class _EndByLetter(LabelConstraint):
    """A label constraint in which any of a row's letters ends the label.

    Rows must stay in the order of `ends`: greedy decoding, no beams.
    """

    def __init__(
        self, index: LabelIndex, prompt_length: int, ends: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(index, prompt_length)
        self._letters = [list(row) for row in ends]

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Int[Tensor, "row position"], scores: Float[Tensor, "row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        masked = super().__call__(input_ids, scores)
        for row, letters in enumerate(self._letters):
            if masked[row, self.index.end] == -torch.inf:
                continue
            free = [token for token in letters if masked[row, token] == -torch.inf]
            if free:
                masked[row, self.index.end] = scores[row, free].logsumexp(0)
        return masked


@torch.no_grad()
def decode_labels(
    model: HookedModel,
    cases: Sequence[FreeCase],
    labels: FreeLabels,
    *,
    line_end: int,
    batch_size: int = 16,
) -> pd.DataFrame:
    """The label that the model writes after each clean prompt, greedily, free and constrained.

    Columns: id, event, decoding ("free": any token; "constrained": only labels of the index),
    label (id; empty where the text is no label or never ends), is_label, exact (it is gold),
    same_cluster (as gold).

    Args:
        model: writes the labels.
        cases: where labels begin.
        labels: all labels.
        line_end: token that ends a step of the chain, after the letter.
        batch_size: prompts decoded together.

    Raises:
        InputError: an empty prompt, or labels of another tokenizer.
    """
    written = {
        "free": _free(model, cases, labels.index, line_end, batch_size),
        "constrained": _constrained(model, cases, labels.index, batch_size),
    }
    rows = []
    for decoding, numbers in written.items():
        for case, number in zip(cases, numbers, strict=True):
            label = "" if number is None else labels.label_id(number)
            cluster = labels.space.cluster(case.labels["clean"])
            rows.append(
                {
                    "id": case.id,
                    "event": case.event,
                    "decoding": decoding,
                    "label": label,
                    "is_label": number is not None,
                    "exact": number == case.gold,
                    "same_cluster": bool(label) and labels.space.cluster(label) == cluster,
                }
            )
    return pd.DataFrame(rows)


def _free(
    model: HookedModel, cases: Sequence[FreeCase], index: LabelIndex, line_end: int, batch_size: int
) -> list[int | None]:
    """Labels that greedy text spells up to the line's end, without the letter before it."""
    rows = greedy_tokens(
        model.bridge.original_model,
        [case.prompts["clean"] for case in cases],
        max_new_tokens=index.longest + 1,
        end=line_end,
        batch_size=batch_size,
    )
    numbers = []
    for case, row in zip(cases, rows, strict=True):
        closed = bool(row) and row[-1] in case.ends
        numbers.append(_only_label(index, [*row[:-1], index.end]) if closed else None)
    return numbers


def _only_label(index: LabelIndex, tokens: Sequence[int]) -> int | None:
    found = read_labels(index, tokens)
    return found[0] if found else None


def _constrained(
    model: HookedModel, cases: Sequence[FreeCase], index: LabelIndex, batch_size: int
) -> list[int | None]:
    starts = count(0, batch_size)

    def constrained(width: int) -> dict[str, Any]:
        start = next(starts)
        ends = [case.ends for case in cases[start : start + batch_size]]
        processors = LogitsProcessorList([_EndByLetter(index, width, ends)])
        return {"logits_processor": processors, "max_new_tokens": index.longest}

    prompts = [case.prompts["clean"] for case in cases]
    network = model.bridge.original_model
    rows = generated(network, prompts, index.end, batch_size, constrained)
    return [_only_label(index, row) for row in rows]
