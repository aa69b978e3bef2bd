"""The settings of predictions: the one source of defaults, ranges and help texts."""

from typing import Annotated, Literal

from pydantic import Field

from workbench.files import settings
from workbench.predicting.generating import GeneratorName

BEST = "best"


@settings
class PredictionConfig:
    """Settings of predictions.

    Raises:
        InputError: a value outside its range.
    """

    split: Annotated[str, Field(description="Whose documents.")] = "test"
    n_documents: Annotated[
        int | None, Field(ge=1, description="Documents from its start; all by default.")
    ] = None
    candidates: Annotated[
        int, Field(ge=1, le=200, description="Labels of a document that the model is shown.")
    ] = 20
    shortlisted: Annotated[
        int, Field(ge=1, description="Labels of a document that are retrieved, and kept.")
    ] = 1000
    ways: Annotated[
        str,
        Field(description="Ways to retrieve, as bm25,chars; best: chosen on training documents."),
    ] = BEST
    order: Annotated[
        Literal["retrieved", "shuffled"],
        Field(description="How candidates are shown: best first, or by a seed of the document."),
    ] = "retrieved"
    way: Annotated[
        Literal["auto", "plain", "chat", "think"],
        Field(description="How the model is asked; auto: chat for models with a chat form."),
    ] = "auto"
    max_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            description="Tokens of a question with its chain; the model's context by default. "
            "What of a document does not fit is left out by passages.",
        ),
    ] = None
    reason: Annotated[
        bool, Field(description="The model writes its reasons first, then options are scored.")
    ] = False
    room: Annotated[int, Field(ge=1, description="Most tokens of these reasons.")] = 1024
    keep_chains: Annotated[
        bool, Field(description="Write what the model wrote, too (chains.parquet).")
    ] = False
    generator: Annotated[
        GeneratorName, Field(description="What writes them; vllm where that is installed.")
    ] = "transformers"
    batch_tokens: Annotated[
        int | None,
        Field(ge=1, description="Tokens that are run together; found by trying by default."),
    ] = None
    patience: Annotated[
        float,
        Field(gt=0, description="Minutes that a process waits for others without anything new."),
    ] = 120.0
    seed: Annotated[int, Field(description="Of the draws.")] = 0
