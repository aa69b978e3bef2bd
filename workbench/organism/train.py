"""The bundled model organism: a small Llama trained from nothing on the ICD-10-CM coding task.

`train_organism` draws prompts from the categories that are not held out, trains a tokenizer and a
model with the Hugging Face Trainer (checkpoints, resume, progress, mixed precision), measures
accuracy by free generation on seen and unseen categories, and writes a Hugging Face model folder
with a model card and the loss curve. Needs nothing that looks inside the model.
"""

import json
import shutil
import time
from collections.abc import Sized
from copy import deepcopy
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch.utils.data import SequentialSampler
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from workbench.analysis.chains.generation import GenerationAccuracy, generation_accuracy
from workbench.errors import InputError
from workbench.files import claim, make_folder, replacing, settings, write_text
from workbench.labels.icd10cm import load_icd10cm
from workbench.models.llama import LlamaShape, Size
from workbench.organism.card import model_card
from workbench.organism.examples import (
    IGNORED,
    Collator,
    ExampleMix,
    TrainingStream,
    train_tokenizer,
)
from workbench.organism.trainer_settings import trainer_settings
from workbench.progress import Reporter
from workbench.prompts.coding import CodingTask, TaskConfig, split_categories
from workbench.prompts.word_encoder import END, end_token

RECORD = "training.json"
SNAPSHOTS = "snapshots"


@settings
class OrganismConfig(LlamaShape):
    """Everything that decides what the trained model is, besides the labels.

    The task's sizes are ranges: small prompts among the large ones are what gets training off its
    first plateau. Accuracy is measured at the full size.
    """

    n_layers: Annotated[Size, Field(description="Layers.")] = 6
    n_heads: Size = 8
    n_kv_heads: Size = 4
    d_model: Size = 256
    d_mlp: Size = 768
    vocab_size: int = 4096
    context: int = 512
    steps: Annotated[Size, Field(description="Training steps.")] = 12000
    batch_size: Annotated[Size, Field(description="Examples per step.")] = 128
    learning_rate: Annotated[float, Field(description="Peak of the schedule.")] = 2e-3
    warmup_steps: Annotated[int, Field(description="Steps up to the peak.")] = 200
    weight_decay: float = 0.1
    held_out: float = 0.1
    split_seed: int = 0
    seed: Annotated[int, Field(description="Seed of weights and data.")] = 0
    task: TaskConfig = field(
        default_factory=lambda: TaskConfig(n_mentions=(1, 3), n_families=(2, 4), family_size=(2, 5))
    )
    mix: ExampleMix = field(default_factory=ExampleMix)


DEFAULTS = OrganismConfig()


class WeightedTrainer(Trainer):
    """Trainer whose loss is averaged by the samples' token weights, and that keeps their order."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # Samples are independent draws already, and their difficulty follows their index.
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(cast(Sized, dataset))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted mean over the tokens of this batch."""
        outputs = model(input_ids=inputs["input_ids"])
        loss = weighted_cross_entropy(outputs.logits, inputs["labels"], inputs["weights"])
        return (loss, outputs) if return_outputs else loss


def weighted_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Next-token loss Σ w·ℓ / Σ w over [batch, position]; the first token predicts the second."""
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


class Snapshots(TrainerCallback):
    """Writes the model, as it is, into a folder of its own at evenly spaced steps.

    Each is a whole model folder in bfloat16, `snapshots/step-000500` and so on, the last one at the
    end of training. Unlike checkpoints, they stay.
    """

    def __init__(self, out: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, count: int):
        self._folder = out / SNAPSHOTS
        self._model = model
        self._tokenizer = tokenizer
        self._count = count

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write one if this step is the last of an equal share of the training."""
        step = state.global_step
        if step * self._count // state.max_steps > (step - 1) * self._count // state.max_steps:
            path = self._folder / f"step-{step:06d}"
            _save(path, deepcopy(self._model), self._tokenizer)


def train_organism(
    out: Path,
    config: OrganismConfig = DEFAULTS,
    *,
    n_eval: int = 1000,
    workers: int = 2,
    checkpoint_every: int = 1000,
    snapshots: int = 0,
    compile_model: bool | None = None,
    reporter: Reporter | None = None,
) -> dict[str, GenerationAccuracy]:
    """Train, evaluate and write the model folder `out`; continues from its last checkpoint.

    With `snapshots`, so many models of the way there stay beside it (`Snapshots`).

    Returns:
        accuracy by free generation for `seen`/`unseen` categories × `direct`/`chain`.
    """
    reporter = reporter or Reporter()
    set_seed(config.seed)
    space = load_icd10cm()
    seen, unseen = split_categories(space, held_out=config.held_out, seed=config.split_seed)
    task = CodingTask(space, seen, config.task)
    if (out / RECORD).is_file():
        raise InputError(f"{out}: holds a trained model already; give another --out")
    claim(out, out / "checkpoints" / "asked.json", _plain(config), "a training")
    tokenizer = _tokenizer(out, task, config)
    end = end_token(tokenizer)
    model = config.build(config.vocab_size, 2 * config.context, eos_token_id=end, pad_token_id=end)
    reporter.say(f"{model.num_parameters():,} parameters, {len(task.categories)} categories")
    started = time.monotonic()
    trainer = _trainer(
        out, model, task, tokenizer, config, workers, checkpoint_every, compile_model
    )
    if snapshots:
        trainer.add_callback(Snapshots(out, model, tokenizer, snapshots))
    last = get_last_checkpoint(str(out / "checkpoints"))
    trainer.train(resume_from_checkpoint=last)
    seconds = time.monotonic() - started
    full = config.task.at_full_size()
    tasks = {"seen": CodingTask(space, seen, full), "unseen": CodingTask(space, unseen, full)}
    accuracy = evaluate_organism(model, tokenizer, tasks, n_prompts=n_eval, seed=config.seed + 1)
    for name, result in accuracy.items():
        reporter.say(f"{name}: exact {result.exact:.3f}, per mention {result.per_mention:.3f}")
    _write(out, model, tokenizer, config, accuracy, trainer.state.log_history, seconds)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return accuracy


def _plain(config: OrganismConfig) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config)))  # tuples become lists, as in a file


def evaluate_organism(
    model: Any, tokenizer: Tokenizer, tasks: dict[str, CodingTask], *, n_prompts: int, seed: int
) -> dict[str, GenerationAccuracy]:
    """Accuracy by free generation of every task, directly and with a chain of thought."""
    model.eval()
    return {
        f"{name} {mode}": generation_accuracy(
            model, tokenizer, task, chain=mode == "chain", n_prompts=n_prompts, seed=seed
        )
        for name, task in tasks.items()
        for mode in ("direct", "chain")
    }


def _tokenizer(out: Path, task: CodingTask, config: OrganismConfig) -> Tokenizer:
    path = out / "checkpoints" / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = train_tokenizer(
        task, vocab_size=config.vocab_size, seed=config.seed, n_prompts=5000
    )
    make_folder(path.parent)
    with replacing(path) as beside:
        tokenizer.save(str(beside))
    return tokenizer


def _trainer(
    out: Path,
    model: LlamaForCausalLM,
    task: CodingTask,
    tokenizer: Tokenizer,
    config: OrganismConfig,
    workers: int,
    checkpoint_every: int,
    compile_model: bool | None,
) -> WeightedTrainer:
    arguments = training_arguments(
        out,
        config,
        workers=workers,
        checkpoint_every=checkpoint_every,
        compile_model=torch.cuda.is_available() if compile_model is None else compile_model,
    )
    stream = TrainingStream(
        task,
        tokenizer,
        config.mix,
        n_samples=config.steps * config.batch_size,
        context=config.context,
        same_size=config.batch_size,
        seed=config.seed,
    )
    return WeightedTrainer(
        model=model, args=arguments, train_dataset=stream, data_collator=Collator()
    )


def training_arguments(
    out: Path,
    config: Any,
    *,
    workers: int,
    checkpoint_every: int,
    compile_model: bool,
    **others: Any,
) -> TrainingArguments:
    """Settings of the Trainer, those of `trainer_settings` and `others`, in place of those here."""
    settings = trainer_settings(config, workers=workers, checkpoint_every=checkpoint_every)
    own = {"output_dir": str(out / "checkpoints"), "bf16": True, "torch_compile": compile_model}
    return TrainingArguments(**settings | own | others)


def _write(
    out: Path,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    config: OrganismConfig,
    accuracy: dict[str, GenerationAccuracy],
    history: list[dict[str, Any]],
    seconds: float,
) -> None:
    _save(out, model, tokenizer)
    record = {
        "config": _plain(config),
        "accuracy": {name: asdict(result) for name, result in accuracy.items()},
        "seconds": round(seconds),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "n_parameters": model.num_parameters(),
        "loss": loss_curve(history),
    }
    write_text(out / RECORD, json.dumps(record, indent=1))
    write_text(out / "README.md", model_card(record))


def loss_curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps and losses that the Trainer logged."""
    return [{"step": row["step"], "loss": row["loss"]} for row in history if "loss" in row]


def _save(folder: Path, model: Any, tokenizer: Tokenizer) -> None:
    """Write a model folder; turns the model into bfloat16."""
    model.to(torch.bfloat16).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, padding_side="left"
    ).save_pretrained(folder)
