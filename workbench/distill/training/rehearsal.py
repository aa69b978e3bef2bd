"""What CKA over a whole step needs before its first forward with a graph: all forwards without.

It costs one forward more of both models, up to the last layer whose heads write, where a step has
several; nothing more than gathering samples over processes, where it has one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from workbench.distill.losses.together import Step

if TYPE_CHECKING:
    from workbench.distill.training.trainer import MechanisticDistillationTrainer


class Rehearsal:
    """A step whose forwards are read without graphs, and then come one by one, as they were read.

    Args:
        trainer: with the models, in training.
        batches: of the step; those of a device are kept there.
    """

    def __init__(
        self, trainer: "MechanisticDistillationTrainer", batches: Sequence[dict[str, Tensor]]
    ) -> None:
        several = len(batches) > 1
        self.step = Step(trainer.args.process_index, _gather, collecting=several)
        self._states: list[Any] = []
        self._next = 0
        if not several:
            return
        # Wrapped for several processes alone where their weights are spread.
        model: Any = trainer.model_wrapped if trainer.is_sharded else trainer.model
        model.train()
        for number, batch in enumerate(batches):
            self._states.append(_random_state(trainer.args.device))
            self.step.begin(number)
            prepared: Any = trainer._prepare_inputs(batch)  # pyright: ignore[reportArgumentType]
            trainer.collect(model, prepared, self.step)
        self.step.collecting = False

    @contextmanager
    def next(self) -> Iterator[Step]:
        """The step, at its next forward; dropout draws what it drew before."""
        number, self._next = self._next, self._next + 1
        if self._states:
            torch.set_rng_state(self._states[number][0])
            if self._states[number][1] is not None:
                torch.cuda.set_rng_state(self._states[number][1])
        self.step.begin(number)
        yield self.step


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    on_device = torch.cuda.get_rng_state() if device.type == "cuda" else None
    return torch.get_rng_state(), on_device


def _gather(samples: Tensor) -> list[Tensor]:
    """The samples of all processes, of which each may have another number."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [samples]
    n = torch.tensor([len(samples)], device=samples.device)
    sizes = [torch.empty_like(n) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, n)
    lengths = [int(size) for size in sizes]
    padded = functional.pad(samples, (0, 0, 0, max(lengths) - len(samples))).contiguous()
    found = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(found, padded)
    return [part[:length] for part, length in zip(found, lengths, strict=True)]
