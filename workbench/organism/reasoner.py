"""The bundled reasoner: a pretrained model, adapted to a task for which it needs its chain.

`train_reasoner` trains a LoRA adapter (peft) of a pretrained model on laterality prompts from
categories that are not held out, measures whole answers by free generation, directly and with a
chain in either format, by depth of reference, and writes the adapter's folder with a model card.
"""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint

from workbench.analysis.chains.generation import draw_prompts, written_answers
from workbench.errors import InputError
from workbench.files import claim, settings, write_text
from workbench.labels.icd10cm import load_icd10cm
from workbench.models import adapters, loading
from workbench.models.extras import extra_package
from workbench.models.greedy import greedy_tokens
from workbench.models.llama import Size
from workbench.organism.card import reasoner_card
from workbench.organism.examples import Collator
from workbench.organism.mix import ExampleMix, Share
from workbench.organism.reasoner_examples import ReasonerStream, TextEncoder
from workbench.organism.train import RECORD, WeightedTrainer, loss_curve, training_arguments
from workbench.progress import Reporter
from workbench.prompts.coding import split_categories
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.laterality import NAME, LateralityConfig, LateralityTask
from workbench.prompts.laterality_chain import CONTROL_CUE
from workbench.prompts.task import NO_OPTION
from workbench.prompts.templates import PlainTemplate

MODES = {"chain": PlainTemplate.reason_cue, "direct": None, "control": CONTROL_CUE}
"""How a model may answer: the cue that opens its chain."""


@settings
class ReasonerConfig:
    """Everything that decides what the adapter is, besides the labels and the base's weights."""

    base: Annotated[str, Field(description="Pretrained model that is adapted.")] = "smollm2"
    rank: Annotated[Size, Field(description="Rank of the adapter, on all linear layers.")] = 16
    alpha: Annotated[float, Field(gt=0, description="Scale of the adapter, over its rank.")] = 32.0
    steps: Annotated[Size, Field(description="Training steps.")] = 2000
    batch_size: Annotated[Size, Field(description="Examples per step.")] = 24
    learning_rate: Annotated[float, Field(gt=0, description="Peak of the schedule.")] = 2e-3
    warmup_steps: Annotated[int, Field(ge=0, description="Steps up to the peak.")] = 100
    context: Size = 1152
    control: Annotated[
        Share, Field(description="Share of the chains that are in the control format.")
    ] = 0.25
    held_out: float = 0.1
    split_seed: int = 0
    seed: Annotated[int, Field(ge=0, description="Seed of weights and data.")] = 0
    task: LateralityConfig = field(default_factory=LateralityConfig)
    mix: ExampleMix = field(
        default_factory=lambda: ExampleMix(
            direct=0.05, partial=0.1, prompt_weight=0.05, ramp=0.1, invented=0.5
        )
    )


DEFAULTS = ReasonerConfig()


@dataclass(frozen=True)
class DepthAccuracy:
    """Shares of `n` prompts (exact: every mention right), and of their mentions by depth."""

    n: int
    exact: float
    by_depth: dict[int, float]
    n_by_depth: dict[int, int]


def accuracy_by_depth(
    model: Any,
    tokenizer: Any,
    task: LateralityTask,
    *,
    mode: str,
    n_prompts: int,
    seed: int,
    batch_size: int = 250,
    max_new_tokens: int = 700,
) -> DepthAccuracy:
    """Greedy answers to fresh prompts; `mode` is one of `MODES`.

    With a chain the model writes chain and answer freely; a generation that never gets to an answer
    counts as wrong. Directly each mention is asked for by its number, as the model has not learned
    to list them all. `model` is a Hugging Face causal language model and `tokenizer` its own.
    """
    prompts = draw_prompts(task, n_prompts, seed)
    opening, exact = MODES[mode], 0
    right: defaultdict[int, list[bool]] = defaultdict(list)
    for start in range(0, n_prompts, batch_size):
        batch = prompts[start : start + batch_size]
        if opening is None:
            answers = _direct_answers(model, tokenizer, task, batch)
        else:
            answers = written_answers(
                model,
                tokenizer.backend_tokenizer,
                task,
                batch,
                chain=True,
                opening=opening,
                end=tokenizer.eos_token_id,
                max_new_tokens=max_new_tokens,
            )
        for prompt, words in zip(batch, answers, strict=True):
            listed = task.read_answer(prompt, words)
            exact += task.metrics(prompt, listed)["in_order"] == 1
            for place, (label, gold) in enumerate(zip(listed, prompt.golds, strict=False)):
                right[task.depth(prompt, place)].append(label == gold)
    by_depth = {at: sum(found) / len(found) for at, found in sorted(right.items())}
    n_by_depth = {at: len(found) for at, found in sorted(right.items())}
    return DepthAccuracy(n_prompts, exact / n_prompts, by_depth, n_by_depth)


def _direct_answers(
    model: Any, tokenizer: Any, task: LateralityTask, prompts: Sequence[DrawnPrompt]
) -> list[list[str]]:
    """Number and next word for every mention, as words of an answer."""
    encode, template = TextEncoder(tokenizer), PlainTemplate()
    asked = [
        encode(f"{task.render(prompt, template).text} {place + 1}")
        for prompt in prompts
        for place in range(len(prompt.mentions))
    ]
    written = greedy_tokens(
        model, asked, max_new_tokens=1, end=tokenizer.eos_token_id, batch_size=len(prompts)
    )
    words = iter(tokenizer.decode(tokens).strip() or NO_OPTION for tokens in written)
    return [
        [word for place in range(len(prompt.mentions)) for word in (str(place + 1), next(words))]
        for prompt in prompts
    ]


def train_reasoner(
    out: Path,
    config: ReasonerConfig = DEFAULTS,
    *,
    n_eval: int = 500,
    workers: int = 2,
    checkpoint_every: int = 1000,
    reporter: Reporter | None = None,
) -> dict[str, DepthAccuracy]:
    """Train, evaluate and write the adapter's folder `out`; continues from its last checkpoint.

    Returns:
        accuracy by free generation for `seen`/`unseen` categories × `MODES`.

    Raises:
        InputError: `out` holds a trained adapter, the base cannot be loaded, or peft is not
            installed.
    """
    peft = extra_package("peft", "training the reasoner")
    reporter = reporter or Reporter()
    set_seed(config.seed)
    if (out / RECORD).is_file():
        raise InputError(f"{out}: holds a trained adapter already; give another --out")
    folder = loading.model_folder(config.base)
    tokenizer = loading.read_tokenizer(folder)
    if tokenizer is None:
        raise InputError(f"model {config.base} has no tokenizer")
    plain = json.loads(json.dumps(asdict(config)))
    plain["task"]["name"] = NAME
    claim(out, out / "checkpoints" / "asked.json", plain, "a training")
    base = loading.read_model(folder, dtype=torch.bfloat16)
    base.set_attn_implementation("sdpa")  # eager holds a square of floats a head and example
    base.config.use_cache = False
    alpha: Any = config.alpha
    lora = peft.LoraConfig(
        r=config.rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model: Any = peft.get_peft_model(base, lora)
    tasks = reasoner_tasks(config)
    reporter.say(f"{model.get_nb_trainable_parameters()[0]:,} trained parameters")
    arguments = training_arguments(
        out, config, workers=workers, checkpoint_every=checkpoint_every, compile_model=False
    )
    stream = ReasonerStream(
        tasks["seen"],
        TextEncoder(tokenizer),
        config.mix,
        control=config.control,
        n_samples=config.steps * config.batch_size,
        context=config.context,
        same_size=config.batch_size,
        seed=config.seed,
    )
    started = time.monotonic()
    trainer = WeightedTrainer(
        model=model, args=arguments, train_dataset=stream, data_collator=Collator()
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out / "checkpoints")))
    seconds = round(time.monotonic() - started)
    adapters.save(model, out, base=config.base)
    merged: Any = loading.read_model(out, dtype=torch.float32)
    merged.to(base.device)
    merged.set_attn_implementation("sdpa")
    accuracy = {}
    for name, mode in [(name, mode) for name in reversed(tasks) for mode in MODES]:
        found = accuracy_by_depth(
            merged, tokenizer, tasks[name], mode=mode, n_prompts=n_eval, seed=config.seed + 1
        )
        accuracy[f"{name} {mode}"] = found
        depths = ", ".join(f"{at}: {share:.3f}" for at, share in found.by_depth.items())
        reporter.say(f"{name} {mode}: exact {found.exact:.3f}; by depth {depths}")
    record = {
        "config": plain,
        "accuracy": {name: asdict(found) for name, found in accuracy.items()},
        "seconds": seconds,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "n_parameters": model.get_nb_trainable_parameters()[0],
        "base_sha256": loading.weights_sha256(folder),
        "loss": loss_curve(trainer.state.log_history),
    }
    write_text(out / RECORD, json.dumps(record, indent=1))
    write_text(out / "README.md", reasoner_card(record))
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return accuracy


def reasoner_tasks(config: ReasonerConfig = DEFAULTS) -> dict[str, LateralityTask]:
    """The task over the categories of training, and over those held out."""
    space = load_icd10cm()
    splits = split_categories(space, held_out=config.held_out, seed=config.split_seed)
    names: Sequence[str] = ("seen", "unseen")
    return {
        name: LateralityTask(space, categories, config.task)
        for name, categories in zip(names, splits, strict=True)
    }
