"""The settings of an adapter: the one source of defaults, ranges and help texts."""

from typing import Annotated, Literal

from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings
from workbench.models.llama import Size

Golds = Literal["each", "any"]


@settings
class AdaptConfig:
    """Everything that decides what the adapter is, besides the data and the model's weights.

    Raises:
        InputError: a value outside its range.
    """

    candidates: Annotated[
        int, Field(ge=2, le=200, description="Labels of a document that the model is shown.")
    ] = 20
    max_tokens: Annotated[
        Size, Field(description="Tokens of a question; of a longer document passages are left out.")
    ] = 1024
    way: Annotated[
        Literal["auto", "plain", "chat"],
        Field(description="How the model is asked; auto: chat for models with a chat form."),
    ] = "auto"
    add_gold: Annotated[
        bool,
        Field(
            description="Put right labels that were not retrieved in place of the last candidates."
        ),
    ] = False
    golds: Annotated[
        Golds,
        Field(
            description="What is learned of several right labels: each (mean of -log p), or any of "
            "them (-log of the sum of p)."
        ),
    ] = "each"
    written: Annotated[
        float,
        Field(
            ge=0,
            description="Weight of -log p(some option) of all tokens, so that answers are written.",
        ),
    ] = 0.1
    steps: Annotated[Size, Field(description="Training steps.")] = 900
    batch_size: Annotated[Size, Field(description="Documents of a step.")] = 32
    parts: Annotated[
        Size, Field(description="Parts in which a step's documents are computed, for memory.")
    ] = 1
    learning_rate: Annotated[float, Field(gt=0, description="Peak of the schedule.")] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0, description="Steps up to the peak.")] = 50
    rank: Annotated[Size, Field(description="Rank of the adapter, on all linear layers.")] = 16
    alpha: Annotated[float, Field(gt=0, description="Scale of the adapter, over its rank.")] = 32.0
    held_out: Annotated[
        Size,
        Field(description="Training documents that are kept out and measured; a tenth at most."),
    ] = 500
    measured: Annotated[
        int, Field(ge=0, description="Times that these are measured on the way to the end.")
    ] = 3
    n_documents: Annotated[
        int | None, Field(ge=2, description="Training documents from the start; all by default.")
    ] = None
    seed: Annotated[int, Field(ge=0, description="Of weights, order and what is held out.")] = 0

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            InputError: parts of a step that are not of one size.
        """
        if self.batch_size % self.parts:
            raise InputError(
                f"batch_size {self.batch_size} cannot be cut into {self.parts} equal parts"
            )


DEFAULTS = AdaptConfig()
