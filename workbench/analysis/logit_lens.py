"""Focus and Confusion layer by layer at the decision, read with the logit lens.

The residual stream at the decision token is taken before each layer and after the last one, and
read through the model's own final norm and unembedding. Step 0 is the embedding, the last step the
model's own answer.
"""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.tools.analysis.logit_lens import logit_readout

from workbench.analysis.readout import Roles, focus_confusion
from workbench.analysis.statistics import bootstrap, mean_statistic
from workbench.analysis.variant_runs import variant_runs
from workbench.errors import InputError
from workbench.models.hooked import HookedModel, Run
from workbench.processes import Spread, in_order
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet

READOUTS = ("focus", "confusion")
ENDS = [f"{name}{end}" for name in READOUTS for end in ("", "_low", "_high")]
COLUMNS = ["kind", "step", "variant", *ENDS, "n"]
EXACT, ROUNDED = 1e-3, 0.1
"""How far the last step may lie from the model's own answer; in half precision, `ROUNDED`."""


def layer_trajectory(
    model: HookedModel,
    prompts: PromptSet,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    spread: Spread = in_order,
) -> pd.DataFrame:
    """The `trajectory` table over layers, per variant: means and 95 % intervals over prompts.

    Columns: `COLUMNS`; kind is "layer", step 0 to n_layers. Roles are those of the clean prompt
    throughout. `progress` is called with (events done, events); several processes `spread` them.

    Raises:
        InputError: the lens does not fit the model.
    """

    def followed(events: Sequence[DecisionEvent]) -> Iterator[Tensor]:
        each = zip(events, variant_runs(model, events, _names(model)), strict=True)
        return (event_trajectory(model, event, runs) for event, runs in each)

    values = spread(followed, prompts.events, progress)
    interval = bootstrap(
        mean_statistic,
        torch.stack(values),
        prompt_ids=[event.id for event in prompts],
        n_resamples=n_resamples,
        seed=seed,
        labels=["trajectory"],
    )
    steps = range(model.info.n_layers + 1)
    rows = []
    for row, variant in enumerate(VARIANTS):
        frame = pd.DataFrame({"kind": "layer", "step": steps, "variant": variant})
        for column, name in enumerate(READOUTS):
            ends = [end[row, :, column].numpy() for end in interval]
            frame[name], frame[f"{name}_low"], frame[f"{name}_high"] = ends
        rows.append(frame.assign(n=len(prompts)))
    return pd.concat(rows, ignore_index=True)


def event_trajectory(
    model: HookedModel, event: DecisionEvent, runs: Sequence[Run] | None = None
) -> Float[Tensor, "variant step readout"]:
    """Focus and Confusion (last axis) of one event, variants in the order of `VARIANTS`.

    `runs` are the event's, with its streams, made here unless given.

    Raises:
        InputError: the model's streams cannot be read through its final norm and unembedding, or
            what is read after the last layer is not the model's own answer.
    """
    names, roles = _names(model), Roles.of(event)
    variants = []
    for run in next(variant_runs(model, [event], names)) if runs is None else runs:
        decisions = [run.activations[name][-1] for name in names]
        try:
            stream = torch.stack([residual.to(decisions[0].device) for residual in decisions])
            # Layers in the place of positions: the library reads any vectors of the stream.
            logits = logit_readout(model.bridge, stream, vocab=event.option_tokens).values
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise InputError(
                f"{model.info.architecture} has no stream of one width that its final norm and "
                f"unembedding read ({type(error).__name__})"
            ) from None
        readout = torch.stack(focus_confusion(logits.cpu().double(), roles), dim=-1)
        own = focus_confusion(run.logits[event.option_tokens].cpu().double()[None], roles)
        off = (readout[-1] - torch.stack(own, dim=-1)[0]).abs().nan_to_num().max().item()
        if off > (EXACT if model.info.dtype in ("float32", "float64") else ROUNDED):
            raise InputError(
                f"{model.info.architecture} does more between its last layer and its answer than "
                f"the logit lens: they differ by {off:.2g}"
            )
        variants.append(readout)
    return torch.stack(variants)


def _names(model: HookedModel) -> list[str]:
    """The residual stream before each layer and after the last."""
    n_layers = model.info.n_layers
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)]
    return [*names, f"blocks.{n_layers - 1}.hook_resid_post"]
