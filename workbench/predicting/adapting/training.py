"""The Trainer of an adapter, and the figures on documents that are held out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from workbench.analysis.label_space.ranking import Rankings, precision_at
from workbench.models.extras import extra_package
from workbench.organism.train import WeightedTrainer, loss_curve, training_arguments
from workbench.predicting.adapting.config import AdaptConfig
from workbench.predicting.adapting.examples import Example, ExampleOrder, collate, order_of_batches
from workbench.predicting.adapting.gathering import Gathered
from workbench.predicting.adapting.loss import listwise_loss
from workbench.predicting.model import PlainModel
from workbench.predicting.scoring import OptionScorer, only_last
from workbench.progress import Advance, Reporter

PLACES = (1, 3, 5)
"""k of the figures."""
TARGETS = "all-linear"
_LOGGED, _FIRST = "eval_", "eval_P@1"
"""Names in the Trainer's log that are figures begin so."""


class _Trainer(WeightedTrainer):
    """Learns which options are right, and measures the documents that are held out."""

    config: AdaptConfig
    measure: Callable[[], dict[str, float]]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """See `listwise_loss`."""
        with only_last(model, inputs["input_ids"].shape, inputs["last"]):
            outputs = model(input_ids=inputs["input_ids"], use_cache=False)
        loss = listwise_loss(
            outputs.logits[:, 0],
            inputs["options"],
            inputs["right"],
            golds=self.config.golds,
            written=self.config.written,
        )
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Figures of the held-out documents, logged with the step; once for each."""
        last = next((row for row in reversed(self.state.log_history) if _FIRST in row), None)
        if last is not None and last["step"] == self.state.global_step:
            return {name: last[name] for name in last if name.startswith(_LOGGED)}
        found = {f"{_LOGGED}{name}": value for name, value in self.measure().items()}
        self.log(found)
        return found


class _Shown(TrainerCallback):
    """Shows the steps as they are done, and the loss."""

    def __init__(self, advance: Advance, reporter: Reporter) -> None:
        self._advance, self._reporter = advance, reporter

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """The mean loss since it was last said."""
        if logs and "loss" in logs:
            self._reporter.say(f"step {state.global_step}: loss {float(logs['loss']):.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more."""
        self._advance(state.global_step, state.max_steps)


class Training:
    """A model with an adapter that learns.

    Args:
        plain: the model; its weights stay as they are.
        config: how it learns.
        out: gets the checkpoints.
        reporter: is told what is done.
        checkpoint_every: steps between checkpoints.
    """

    def __init__(
        self,
        plain: PlainModel,
        config: AdaptConfig,
        out: Path,
        reporter: Reporter,
        checkpoint_every: int,
    ) -> None:
        peft = extra_package("peft", "adapting a model")
        set_seed(config.seed)
        self._config, self._reporter = config, reporter
        self._folder, self._every = out, checkpoint_every
        plain.hf.config.use_cache = False
        alpha: Any = config.alpha
        lora = peft.LoraConfig(
            r=config.rank, lora_alpha=alpha, target_modules=TARGETS, task_type="CAUSAL_LM"
        )
        self.model: Any = peft.get_peft_model(plain.hf, lora)
        self._plain = replace(plain, hf=self.model)

    def run(self, found: Gathered) -> dict[str, Any]:
        """Train from the last checkpoint, if there is one; what came of it, for the record."""
        config, counts = self._config, found.counts
        trained = self.model.get_nb_trainable_parameters()[0]
        self._reporter.say(
            f"{trained:,} trained parameters; of {counts['documents']:,} documents "
            f"{counts['learned_from']:,} to learn from, {counts['held_out']:,} held out, "
            f"{counts['without_right_candidate']:,} without a right label among the candidates"
        )
        if counts["narrowed"]:
            self._reporter.say(
                f"{counts['narrowed']:,} documents have fewer candidates, since their options are "
                "too long"
            )
        last = get_last_checkpoint(str(self._folder / "checkpoints"))
        trainer = self._trainer(found, at_start=last is None)
        started = time.monotonic()
        with self._reporter.step("steps", config.steps, "steps") as advance:
            trainer.add_callback(_Shown(advance, self._reporter))
            trainer.train(resume_from_checkpoint=last)
        trainer.evaluate()
        device = self._plain.device
        retrieved = [one.labels for one in found.held]
        return {
            "counts": counts,
            "held_out": {
                "retrieved": _figures(found.held, retrieved),
                "by_step": _by_step(trainer),
            },
            "seconds": round(time.monotonic() - started),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "n_parameters": trained,
            "base_sha256": self._plain.weights_sha256,
            "loss": loss_curve(trainer.state.log_history),
        }

    def _trainer(self, found: Gathered, *, at_start: bool) -> _Trainer:
        config = self._config
        lengths = [len(one.tokens) for one in found.learned]
        order = order_of_batches(lengths, config.steps, config.batch_size, config.seed)
        arguments = training_arguments(
            self._folder,
            config,
            workers=0,
            checkpoint_every=self._every,
            compile_model=False,
            bf16=self._plain.dtype == torch.bfloat16,
            use_cpu=self._plain.device.type == "cpu",
            per_device_train_batch_size=config.batch_size // config.parts,
            gradient_accumulation_steps=config.parts,
            eval_strategy="steps" if config.measured else "no",
            eval_on_start=at_start,
            eval_steps=max(1, config.steps // (config.measured + 1)),
        )
        arguments._n_gpu = min(1, arguments.n_gpu)  # else the Trainer copies it to all of them
        trainer = _Trainer(
            model=self.model,
            args=arguments,
            train_dataset=ExampleOrder(found.learned, order),
            eval_dataset=ExampleOrder(found.held, np.arange(len(found.held))),
            data_collator=collate,
        )
        trainer.model_accepts_loss_kwargs = False  # parts of a step are averaged
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.config = config
        trainer.measure = lambda: self._measured(found.held)
        return trainer

    def _measured(self, held: Sequence[Example]) -> dict[str, float]:
        """P@k of the model's ranking of the candidates."""
        was_training = self.model.training
        self.model.eval()
        with self._reporter.step("held out", len(held), "documents") as advance:
            done = 0

            def more(count: int) -> None:
                nonlocal done
                done += count
                advance(done, len(held))

            scores = OptionScorer(self._plain).log_probs(held, more)
        self.model.train(was_training)
        ranked = [
            [one.labels[place] for place in np.argsort(-score, kind="stable")]
            for one, score in zip(held, scores, strict=True)
        ]
        figures = _figures(held, ranked)
        told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self._reporter.say(f"held out: {told}")
        return figures


def _by_step(trainer: Any) -> list[dict[str, Any]]:
    return [
        {"step": row["step"]}
        | {k.removeprefix(_LOGGED): v for k, v in row.items() if k.startswith(f"{_LOGGED}P@")}
        for row in trainer.state.log_history
        if _FIRST in row
    ]


def _figures(held: Sequence[Example], ranked: Sequence[Sequence[int]]) -> dict[str, float]:
    found = Rankings.of([sorted(one.gold) for one in held], ranked)
    return {f"P@{k}": precision_at(found, k).value for k in PLACES}
