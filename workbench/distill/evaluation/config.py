"""How simulators are trained: settings, without what trains them."""

import random
from typing import Annotated

from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings


@settings
class SimulatorConfig:
    """How a simulator is trained.

    Raises:
        InputError: a value outside its range.
    """

    steps: Annotated[int, Field(ge=1, description="Training steps of a simulator.")] = 400
    batch_size: Annotated[int, Field(ge=1, description="Chains of a step.")] = 16
    learning_rate: Annotated[float, Field(gt=0, description="Highest, after a warm-up.")] = 1e-4
    input_only: Annotated[
        float, Field(ge=0, le=1, description="Share of training chains that are hidden.")
    ] = 0.25
    chain_only: Annotated[
        float, Field(ge=0, le=1, description="Share of training chains whose input is hidden.")
    ] = 0.25
    seed: Annotated[int, Field(description="Seed of the order and of what is hidden.")] = 0

    def __post_init__(self) -> None:
        if not (self.input_only and self.chain_only and self.input_only + self.chain_only < 1):
            raise InputError(
                "a simulator learns from inputs alone, chains alone and both: input_only and "
                "chain_only must be above 0, and below 1 together"
            )

    def drawn(self, rng: random.Random) -> str:
        """What is shown of a chain: "x", "e" or "xe"."""
        draw = rng.random()
        if draw < self.input_only:
            return "x"
        return "e" if draw < self.input_only + self.chain_only else "xe"
