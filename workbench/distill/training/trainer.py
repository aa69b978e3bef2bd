"""The Hugging Face Trainer with a frozen teacher beside the student.

What the Trainer does (schedules, mixed precision, accumulation, checkpoints and going on from them,
several processes) stays its own. Added are the teacher, which belongs to no state dict and is
wrapped by nothing, the terms of the loss, and their values in the log.

Each term is divided by its own count over the whole accumulated step, of all processes; what is
counted follows from the batches alone. So accumulation changes nothing for terms that are sums
over tokens, rows or examples. CKA (`update`, `circuit`, `p1_write`, `p2_write`) is no sum: it is
taken over the samples of the whole step (`rehearsal`), or where `LossConfig.cka` is "forward" of
each forward, whose mean is taken by their number of samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from workbench.distill.config import LossConfig
from workbench.distill.examples.stream import DistillationStream
from workbench.distill.losses.compiling import SMALL, eager, fuse
from workbench.distill.losses.losses import Loss
from workbench.distill.losses.together import Step
from workbench.distill.matching.head_map import HeadMap
from workbench.distill.reading.batches import completed
from workbench.distill.reading.capture import Capture, Reading
from workbench.distill.reading.parts import attention_modules, plain_model, shape_of
from workbench.distill.reading.positions import Marks, choose_queries, sampled_positions
from workbench.distill.reading.wanted import Wanted
from workbench.distill.targets.store import Targets
from workbench.distill.training.arguments import check_arguments, is_recomputed, optimizing
from workbench.distill.training.rehearsal import Rehearsal
from workbench.distill.training.sharding import check_sharding, keep_ends_whole
from workbench.distill.training.student import check_vocabulary
from workbench.distill.training.terms import Models, Terms
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.sharded import is_sharded

Counts = Mapping[str, Float[Tensor, ""]]
"""Normaliser of each term over an accumulated step."""


class MechanisticDistillationTrainer(Trainer):
    """Trains a student on a teacher's chains, attention, updates and their interaction.

    Batches are those of `stream.Collator`, or stock ones (`input_ids`, `attention_mask`, `labels`)
    where no term looks at options, evidence or decisions; see `batches.completed`. Both models
    compute attention as they did before: which implementation they have is the caller's matter.
    Rows in which the teacher says nothing (`interaction`, where its coarse heads look at no option)
    add 0 and are counted all the same.

    Args:
        model: the student; also one that peft has wrapped.
        teacher: moved to the training device unless it is spread over several, or over the
            processes (`models/sharded`), which then run it together; frozen.
        config: the terms of the loss.
        headmap: matched heads, where a term needs them.
        circuit: (teacher head, student head) matched by ablation effect, where `circuit` is on.
        n_tokens: entries of the tokenizer that both have, over which next-token distributions are
            compared; as many as both have rows of embeddings unless given.
        args: as the Trainer's; `remove_unused_columns` becomes False.
        targets: what the teacher did, computed before; then it is not run, and `teacher` is
            `targets.teacher()`, without weights.
        kwargs: of the Trainer.

    `is_sharded` says whether weights are spread over devices (FSDP, DeepSpeed). `compute_metrics`
    and `predict` get the student's logits and the labels, not shifted.

    Raises:
        InputError: what `check_vocabulary`, `check_arguments` and `check_sharding` refuse, or a map
            that is missing or does not fit.
    """

    # Read by the Trainer: no further division by the number of accumulated forwards.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        teacher: Any,
        config: LossConfig,
        *,
        args: TrainingArguments,
        headmap: HeadMap | None = None,
        circuit: Sequence[tuple[Head, Head]] = (),
        n_tokens: int | None = None,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> None:
        student, taught = plain_model(model), plain_model(teacher)
        if targets is not None:
            targets.check_student(shape_of(student))
        both = check_vocabulary(taught, student)
        n_tokens = min(both, n_tokens or both)
        terms = Terms(Models(config, taught, student, headmap, circuit, n_tokens))
        wanted = terms.wanted["student"]
        check_arguments(args, wanted, student, kwargs.get("compute_loss_func"))
        args.remove_unused_columns = False
        if args.n_gpu > 1:  # copies of the model in one process could not be read
            args._n_gpu = 1
        self.terms, self.taught, self.targets = terms, taught, targets
        self.headmap, self.circuit, self.n_tokens = headmap, circuit, n_tokens
        self._compiles = student.num_parameters() <= SMALL
        with self._compiling():
            self._student_capture = Capture(student, wanted)
            if targets is None:
                self._teacher_capture = Capture(taught, terms.wanted["teacher"])
        if targets is not None:
            targets.use(config, n_tokens)
        super().__init__(model=model, args=args, **kwargs)
        # Known only now: `accelerate launch` says it to the accelerator, not in the arguments.
        self.is_sharded = bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if self.is_sharded:
            check_sharding(self, wanted)
            self._compiles = False  # compiled, weights are read after they were let go of
        looks, needs = wanted.looks, config.batch_keys
        if targets is not None:  # their rows and places may be more, of further terms
            looks = looks and looks | set(targets.manifest.looks)
            needs = {**needs, "targets": targets.manifest.keys}
        self._choose = partial(choose_queries, rows=config.rows, looks=looks)
        self._complete = partial(completed, needs=needs)
        choose = self._choose if looks else None
        self.data_collator = partial(_collated, self.data_collator, self._complete, choose, targets)
        # As `loss_is_scaled_for_ga`, for releases of transformers that do not know it.
        self.model_accepts_loss_kwargs = True
        self.teacher = teacher.eval().requires_grad_(False)
        spread = is_sharded(teacher) or getattr(teacher, "hf_device_map", None) is not None
        if targets is None and not spread:
            teacher.to(args.device)  # pyright: ignore[reportArgumentType]
        self._student_capture.recomputed = is_recomputed(self)
        if self._compiles and not is_sharded(teacher):
            if targets is None:
                fuse(attention_modules(taught)[1])
            if not self._student_capture.recomputed:  # compiled, it would be another computation
                fuse(attention_modules(student)[1])
        self._weights = torch.tensor(list(config.on.values()), device=self.args.device)
        self._logged: Float[Tensor, " term"] | None = None
        self._logged_from = 0
        self._rehearsal: Rehearsal | None = None

    def _compiling(self) -> AbstractContextManager[None]:
        return nullcontext() if self._compiles else eager()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(dataset, DistillationStream):
            # Samples are independent draws already, and their difficulty follows their index.
            return SequentialSampler(cast(Sized, dataset))
        return super()._get_train_sampler(train_dataset)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer does; what of it depends on the student's modules fails in a line."""
        with optimizing(self.args):
            return super().create_optimizer(*args, **kwargs)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of a step, and the normaliser of each term."""
        self._rehearsal = None
        if 0 < self.state.max_steps <= self.state.global_step:
            # Begun again from the checkpoint of its end, the Trainer would take a step more.
            self.control.should_training_stop = True
            return [], None
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        counts = self._whole_counts(batches)
        if self.terms.by_cka and (len(batches) > 1 or self.accelerator.num_processes > 1):
            self._rehearsal = Rehearsal(self, batches)
        return batches, counts

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum of the terms; the reading of the student as outputs.

        `num_items_in_batch` are the counts of the step; without them those of this batch are taken.
        """
        counts = num_items_in_batch
        if not isinstance(counts, Mapping):
            counts = self._whole_counts([inputs])
        rehearsal = self._rehearsal if model.training else None
        with rehearsal.next() if rehearsal else nullcontext(None) as step:
            losses, reading = self.losses(model, inputs, step)
        weights = self.terms.config.on
        # All terms at once: many operations on single numbers would cost as much as a term.
        divisors = torch.stack([counts[name] for name in weights])
        totals = torch.stack([losses[name].total for name in weights])
        shares = totals / torch.where(divisors > 0, divisors, 1.0)
        total = (shares * self._weights).sum()
        if model.training:
            if self._logged_from < 0:
                self._logged_from = self.state.global_step
            noted = shares.detach()
            self._logged = noted if self._logged is None else self._logged + noted
        if self.accelerator.num_processes > 1:
            # Gradients are averaged over processes, of which each divided by the count of all.
            total = total * self.accelerator.num_processes
            if "chain" not in weights and reading.logits is not None:
                total = total + 0.0 * reading.logits.float().mean()  # every weight takes part
        return (total, {"logits": reading.logits}) if return_outputs else total

    def losses(
        self, model: Any, inputs: Mapping[str, Tensor], step: Step | None = None
    ) -> tuple[dict[str, Loss], Reading]:
        """Unweighted terms of one batch, and the reading of the student.

        With a step, of which it is the next forward, CKA is that of the whole step.
        """
        with self._compiling():
            found = self._losses(model, inputs, step)
        if isinstance(self.teacher, FSDPModule):
            self.teacher.reshard()
        return found

    def collect(self, model: Any, inputs: Mapping[str, Tensor], step: Step) -> None:
        """Give a step what its next forward's CKA compares; without a graph."""
        inputs, wanted = self.ready(inputs), self.terms.collected
        with self._compiling(), torch.no_grad(), self.compute_loss_context_manager():
            taught = self.read_teacher(inputs, wanted["teacher"])
            whole = Wanted(logits=self.is_sharded)  # shards gather and let go as they do to the end
            learnt = self.read_student(model, inputs, wanted["student"] | whole)
            self.terms.collect(inputs, taught, learnt, step)
        if isinstance(self.teacher, FSDPModule):
            self.teacher.reshard()

    def ready(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A batch with all that terms look at."""
        inputs = self._complete(inputs)
        if self._choose.keywords["looks"] and "queries" not in inputs:
            inputs = {**inputs, "queries": self._choose(inputs)}
        return inputs

    def _losses(
        self, model: Any, inputs: Mapping[str, Tensor], step: Step | None
    ) -> tuple[dict[str, Loss], Reading]:
        inputs = self.ready(inputs)
        if self.is_sharded:
            keep_ends_whole(model, attention_modules(plain_model(self.model))[0])
        taught = self.read_teacher(inputs)
        learnt = self.read_student(model, inputs)
        return self.terms(inputs, taught, learnt, step), learnt

    def read_teacher(self, inputs: Mapping[str, Tensor], part: Wanted | None = None) -> Reading:
        """What the terms need of the teacher in a collated batch, from targets where they are.

        Or a part of it.
        """
        if not self.terms.config.needs_teacher:
            return Reading()
        rows, ids = self.terms.config.rows, inputs["input_ids"]
        if self.targets is not None:
            return self.targets.reading(inputs, Marks.of(inputs, rows))
        capture = self._teacher_capture if part is None else self._teacher_capture.only(part)
        with self._compiling(), torch.no_grad():
            samples = sampled_positions(inputs, rows)
            return capture.run(
                lambda: self.teacher(input_ids=ids, use_cache=False), samples, inputs.get("queries")
            ).to(ids.device)

    def read_student(
        self, model: Any, inputs: Mapping[str, Tensor], part: Wanted | None = None
    ) -> Reading:
        """What the terms need of the student in a collated batch, or a part of it."""
        capture = self._student_capture if part is None else self._student_capture.only(part)
        with self._compiling():
            samples = sampled_positions(inputs, self.terms.config.rows)
            return capture.run(
                lambda: model(input_ids=inputs["input_ids"], use_cache=False),
                samples,
                inputs.get("queries"),
            )

    @property
    def unembedding(self) -> Any:
        """The teacher's module that makes logits."""
        return self.taught.get_output_embeddings()

    def collated(
        self, samples: Sequence[Mapping[str, Any]], *, here: bool = False
    ) -> dict[str, Tensor]:
        """A batch of samples, on the training device; where they are if `here`."""
        batch = cast(Any, self.data_collator)(samples)
        return batch if here else cast(Any, self)._prepare_inputs(batch)

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss of an evaluation batch, and for metrics and predictions its logits and labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        loss = loss.detach().mean()
        if prediction_loss_only:
            return loss, None, None
        return loss, outputs["logits"].detach(), inputs["labels"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the loss goes the unweighted mean of every term since the last time.

        Raises:
            InputError: a loss or the gradient is no finite number; what is trained on then is lost.
        """
        steps = self.state.global_step - self._logged_from
        if "loss" in logs and self._logged is not None and steps > 0:
            summed = self._logged
            if self.accelerator.num_processes > 1:
                summed = self.accelerator.reduce(summed, "sum")
            assert isinstance(summed, Tensor)
            means = (summed / steps).tolist()
            logs |= {
                f"loss_{name}": mean for name, mean in zip(self.terms.config.on, means, strict=True)
            }
            self._logged = None
            self._logged_from = self.state.global_step
        self._check_finite(logs)
        super().log(logs, start_time)

    def _check_finite(self, logs: Mapping[str, float]) -> None:
        names = [name for name in logs if name == "loss" or name.startswith("loss_")]
        if not self.args.fp16:  # whose scale of losses is found by gradients that are too large
            names.append("grad_norm")
        wrong = [name for name in names if not math.isfinite(logs.get(name, 0.0))]
        if wrong:
            raise InputError(
                f"at step {self.state.global_step} {', '.join(wrong)} are no finite numbers, so "
                "the weights are lost; go on from a checkpoint before that with a lower learning "
                "rate, or without the terms named"
            )

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train; see `Trainer.train`."""
        self._logged = None
        self._logged_from = -1  # not known before the state of a checkpoint is read
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        with _whole(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _whole(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _whole(checkpoint):
            super()._load_rng_state(checkpoint)

    def _whole_counts(self, batches: list[Any]) -> Counts:
        with self._compiling():
            each = [self.terms.counts(self._complete(batch)) for batch in batches]
        names = list(self.terms.config.on)
        summed = torch.stack(
            [torch.stack([counts[name] for name in names]).to(self.args.device) for counts in each]
        ).sum(dim=0)
        if self.accelerator.num_processes > 1:
            summed = self.accelerator.reduce(summed, "sum")
        assert isinstance(summed, Tensor)
        return dict(zip(names, summed, strict=True))


def _collated(
    collate: Any, complete: Any, choose: Any, targets: Targets | None, samples: Any
) -> dict[str, Tensor]:
    batch = complete(collate(samples))
    batch = {**batch, "queries": choose(batch)} if choose else {**batch}
    return batch if targets is None else targets.collated(batch, samples)


@contextmanager
def _whole(checkpoint: str | None) -> Iterator[None]:
    """Says which checkpoint is damaged, whatever reading it raises."""
    try:
        yield
    except Exception as error:
        if checkpoint is None or isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        raise InputError(
            f"{checkpoint}: is a damaged checkpoint ({type(error).__name__}); delete it, and "
            "training goes on from the one before it, or begins anew"
        ) from error
