"""A simulator: a language model that learns to say what another model answered.

It reads the input, the chain, or both, then the question, and is trained by cross-entropy on the
output. What it is shown is drawn anew for every chain and step, so that one simulator answers from
all three, as in Hase et al. 2020 (arXiv 2010.04119), who drop inputs and explanations at random.
All its weights are trained, from those of the model it is made of.

Questions about one chain are branches behind it: each sees the chain and itself, and positions go
on from the chain. It is right where every token of the output, and the end after it, is its most
likely one.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformer_lens.utilities.devices import get_device

from workbench.distill.evaluation.config import SimulatorConfig
from workbench.distill.evaluation.simulated import TEXTS, Asked, tokenized
from workbench.errors import InputError
from workbench.models import loading
from workbench.progress import Advance, Reporter

SEEN = ("x", "e", "xe")
MULTIPLE = 16
"""Batches are as wide as a multiple of this, which fused attention wants."""
NO_LABEL = -100


class Simulator:
    """A model that is trained to say what another one answers.

    Args:
        model: a Hugging Face causal language model, which is trained in place.
        tokenizer: its own, of the fast kind.
        config: how it is trained.
        name: what it was made of.
        reporter: where progress is told.

    Attributes:
        about: what it is, and how it was trained.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: SimulatorConfig,
        name: str = "in-memory",
        reporter: Reporter | None = None,
    ) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._reporter = reporter or Reporter()
        model.set_attn_implementation("sdpa")  # masks below are its kind; eager ones are sums
        self.about: dict[str, Any] = {
            "model": name,
            "parameters": sum(each.numel() for each in model.parameters()),
            **vars(config),
        }

    @classmethod
    def load(
        cls,
        source: str | Path,
        config: SimulatorConfig,
        *,
        device: str | None = None,
        reporter: Reporter | None = None,
    ) -> "Simulator":
        """From a model folder, name or hub id, in float32.

        Raises:
            InputError: it cannot be read, or has no tokenizer.
        """
        folder = loading.model_folder(source)
        tokenizer = loading.read_tokenizer(folder)
        if tokenizer is None:
            raise InputError(f"simulator {source}: has no tokenizer to read texts with")
        model: Any = loading.read_model(folder, dtype=torch.float32)
        model = model.to(loading.parse_device(device or get_device()))
        made = cls(model, tokenizer, config, Path(source).name, reporter)
        made.about["weights_sha256"] = loading.weights_sha256(folder)
        return made

    def train(self, table: pd.DataFrame) -> None:
        """Learn from rows of `read_simulated`.

        Raises:
            InputError: a prompt that is longer than the model can read.
        """
        config, model = self._config, self._model
        asked = self._read(table)
        model.requires_grad_(True)  # of a merged adapter, peft leaves most weights frozen
        rng = random.Random(config.seed)
        torch.manual_seed(config.seed)
        optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=0.0)
        warmup = max(1, config.steps // 10)

        def pace(step: int) -> float:
            return min((step + 1) / warmup, max(0.0, (config.steps - step) / config.steps))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
        model.train()
        batches = _endless(asked, config.batch_size, rng)
        losses: list[Tensor] = []
        with self._reporter.step("simulator learns", config.steps, "steps") as advance:
            for step in range(config.steps):
                shown = [(one, config.drawn(rng)) for one in next(batches)]
                logits, labels = self._logits(shown)
                loss = torch.nn.functional.cross_entropy(
                    logits.float().flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL
                )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss.detach())
                advance(step + 1, config.steps)
        model.eval()
        last = losses[-max(1, config.steps // 10) :]
        self.about["n_learnt_from"] = len(table)
        self.about["last_loss"] = float(torch.stack(last).mean())

    def cases(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of `read_simulated` without their texts, and with x, e and xe: was it right?

        Raises:
            InputError: a prompt that is longer than the model can read.
        """
        asked = self._read(table)
        kept = table.drop(columns=[name for name in TEXTS if name != "output"])
        with self._reporter.step("simulator answers", len(SEEN) * len(asked), "chains") as advance:
            for number, seen in enumerate(SEEN):

                def ahead(done: int, of: int, number: int = number) -> None:
                    advance(number * of + done, len(SEEN) * of)

                kept[seen] = self.right(asked, seen, ahead)
        return kept

    @torch.no_grad()
    def right(
        self, asked: Sequence[Asked], seen: str, progress: Advance | None = None
    ) -> list[bool]:
        """For each row of the table whether the output is what the simulator says."""
        found: dict[int, bool] = {}
        order = sorted(asked, key=lambda one: len(one.prefix(seen)))
        for start in range(0, len(order), size := 2 * self._config.batch_size):
            some = order[start : start + size]
            logits, labels = self._logits([(one, seen) for one in some])
            agree = (logits.argmax(-1) == labels) | (labels == NO_LABEL)
            for one, row in zip(some, agree.tolist(), strict=True):
                ends = [sum(map(len, one.branches[:n])) for n in range(len(one.branches) + 1)]
                row = row[len(row) - ends[-1] :]
                for number, at, end in zip(one.rows, ends, ends[1:], strict=False):
                    found[number] = all(row[at:end])
            if progress:
                progress(min(start + size, len(order)), len(order))
        return [found[number] for number in sorted(found)]

    def _read(self, table: pd.DataFrame) -> list[Asked]:
        asked = tokenized(table, self._tokenizer)
        room = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        for one in asked:
            length = len(one.prefix("xe")) + max(map(len, one.branches))
            if room is not None and length > room:
                raise InputError(
                    f"row {one.rows[0] + 1} has {length:,} tokens, the simulator reads {room:,}"
                )
        return asked

    def _logits(self, shown: Sequence[tuple[Asked, str]]) -> tuple[Tensor, Tensor]:
        """Logits at the branches' tokens, "chain token vocabulary", and what should follow each."""
        device = self._model.device
        tokens, positions, mask, labels = packed(shown, self._tokenizer.eos_token_id or 0)
        low = device.type == "cuda"
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            logits = self._model(
                input_ids=tokens.to(device),
                position_ids=positions.to(device),
                attention_mask=mask.to(device),
                use_cache=False,
                logits_to_keep=labels.shape[1],
            ).logits
        return logits[:, -labels.shape[1] :], labels.to(device)


def packed(
    shown: Sequence[tuple[Asked, str]], pad: int
) -> tuple[
    Int[Tensor, "chain token"],
    Int[Tensor, "chain token"],
    Bool[Tensor, "chain 1 token token"],
    Int[Tensor, "chain branch_token"],
]:
    """Tokens, positions, who attends to whom, and labels of the last tokens: those of branches.

    Padding is on the left, and attends to itself alone. A label is the token that follows, where
    that is of an output; -100 elsewhere.
    """
    prefixes = [one.prefix(seen) for one, seen in shown]
    longest = max(sum(map(len, one.branches)) for one, _ in shown)
    width = max(
        len(prefix) + sum(map(len, one.branches))
        for prefix, (one, _) in zip(prefixes, shown, strict=True)
    )
    width = -(-width // MULTIPLE) * MULTIPLE
    tokens = torch.full((len(shown), width), pad)
    positions = torch.zeros(len(shown), width, dtype=torch.long)
    mask = torch.eye(width, dtype=torch.bool).repeat(len(shown), 1, 1)
    labels = torch.full((len(shown), width), NO_LABEL)
    for row, (prefix, (one, _)) in enumerate(zip(prefixes, shown, strict=True)):
        at = width - len(prefix) - sum(map(len, one.branches))
        begin, after = at, at + len(prefix)
        tokens[row, begin:after] = torch.tensor(prefix, dtype=torch.long)
        positions[row, begin:after] = torch.arange(len(prefix))
        mask[row, begin:after, begin:after] = _causal(len(prefix))
        at = after
        for branch, start in zip(one.branches, one.starts, strict=True):
            end = at + len(branch)
            tokens[row, at:end] = torch.tensor(branch)
            positions[row, at:end] = torch.arange(len(prefix), len(prefix) + len(branch))
            mask[row, at:end, begin:after] = True
            mask[row, at:end, at:end] = _causal(len(branch))
            labels[row, at + start - 1 : end - 1] = torch.tensor(branch[start:])
            at = end
    return tokens, positions, mask[:, None], labels[:, width - longest :]


def _causal(n: int) -> Bool[Tensor, "query key"]:
    return torch.ones(n, n, dtype=torch.bool).tril()


def _endless(asked: Sequence[Asked], size: int, rng: random.Random) -> Iterator[list[Asked]]:
    """Batches in a new order each time round."""
    waiting: list[Asked] = []
    while True:
        while len(waiting) < size:
            again = list(asked)
            rng.shuffle(again)
            waiting += again
        yield waiting[:size]
        waiting = waiting[size:]
