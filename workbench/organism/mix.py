"""How training examples differ, as settings."""

from typing import Annotated

from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings

Share = Annotated[float, Field(ge=0, le=1)]


@settings
class ExampleMix:
    """Shares of the kinds of training examples, and the weight of their prompts in the loss."""

    direct: Annotated[
        Share, Field(description="Share of examples that answer without a chain.")
    ] = 0.15
    partial: Annotated[
        Share, Field(description="Share that answers after the first steps of the chain.")
    ] = 0.07
    prompt_weight: Annotated[
        Share, Field(description="Loss weight of the prompt's tokens; the rest weighs 1.")
    ] = 0.2
    ramp: Annotated[
        Share,
        Field(
            description="First share of training over which mentions go from written out to the "
            "task's shorthand."
        ),
    ] = 0.25
    invented: Annotated[
        Share, Field(description="Share of families whose words are replaced by others.")
    ] = 0.0

    def __post_init__(self) -> None:
        if self.direct + self.partial > 1:
            raise InputError("direct and partial must not exceed 1 together")
