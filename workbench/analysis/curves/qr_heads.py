"""QRHead: heads whose attention goes from the query to the documents that answer it.

Zhang et al. (2025, "Query-Focused Retrieval Heads Improve Long-Context Reasoning and Re-ranking",
arXiv 2506.09944): the QRScore of a head is the attention mass that the tokens of the query put on
the gold documents, averaged over the query's tokens and over examples. The query follows the
documents and its tokens are all that do, the instruction and the end of the turn among them.

Here documents are options, and the query all tokens behind the last of them. Gold documents are the
gold option for 1 − Confusion, and with it its near misses for Focus. Their code takes off the mass
that an empty query ("N/A") gives each token; that needs documents that stand before all of the
query, and where a note comes first, as in the bundled task, they are read in its light. So it is
left out, as in the paper's formula.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.models.pattern_rows import attention_rows
from workbench.phases import OF_READOUT
from workbench.processes import Spread, in_order
from workbench.prompts.prompt import DecisionEvent


def qr_scores(
    model: HookedModel,
    events: Sequence[DecisionEvent],
    readout: str,
    *,
    progress: Callable[[int, int], None] | None = None,
    spread: Spread = in_order,
) -> Float[Tensor, "layer head"]:
    """QRScore of every head, a share of attention, for the documents that a readout calls right.

    Raises:
        InputError: an unknown readout, no event, or what `attention_rows` refuses.
    """
    if readout not in OF_READOUT:
        raise InputError(f"readout {readout!r} is not one of {', '.join(OF_READOUT)}")
    if not events:
        raise InputError("QRHead: no event to score heads on")
    roles = ("gold", "near") if OF_READOUT[readout].rises else ("gold",)
    total = torch.zeros(model.info.n_layers, model.info.n_heads, dtype=torch.float64)

    def shares(some: Sequence[DecisionEvent]) -> Iterator[Tensor]:
        for event in some:
            end = len(event.clean)
            query = range(min(max(option.span[1] for option in event.options), end - 1), end)
            gold = torch.zeros(end, dtype=torch.double)
            for option in event.options:
                if option.role in roles:
                    gold[slice(*option.span)] = 1
            rows = attention_rows(model, event.clean, query)
            yield torch.stack([(row.cpu().double() @ gold).mean(dim=-1) for row in rows])

    for share in spread(shares, events, progress):
        total += share
    return total / len(events)
