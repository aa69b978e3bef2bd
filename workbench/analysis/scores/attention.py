"""How much a head's attention links each option with the evidence and with the decision.

Two routes can carry the filtering. *Evidence route*: of an option's span and the evidence, the one
that starts later is the query (a causal model can only look back); the attention mass that its
tokens put on the other, averaged over those query tokens. *Decision route*: the mass that the
decision token puts on the option's span. The contrast of a route is its mean over the relevant
options (gold and near) minus its mean over the far ones.
"""

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import Roles
from workbench.prompts.prompt import DecisionEvent, Span

ROUTES = ("evidence", "decision")
"""Names along the last axis of every "route" tensor."""


def attention_routes(
    pattern: Float[Tensor, "head query key"], spans: Sequence[Span], evidence: Span
) -> Float[Tensor, "option head route"]:
    """Both route statistics of every option, from one layer's attention pattern of one prompt.

    `pattern` rows sum to 1; the last query is the decision token.
    """
    members = pattern.new_zeros(len(spans), pattern.shape[-1])
    for row, span in enumerate(spans):
        members[row, slice(*span)] = 1
    means = members / members.sum(dim=1, keepdim=True)
    start, end = evidence
    option_asks = einsum(
        pattern[:, :, start:end].sum(dim=-1), means, "head query, option query -> option head"
    )
    evidence_asks = einsum(
        pattern[:, start:end].mean(dim=1), members, "head key, option key -> option head"
    )
    option_is_later = torch.tensor([span[0] > start for span in spans], device=pattern.device)
    by_evidence = torch.where(option_is_later[:, None], option_asks, evidence_asks)
    by_decision = einsum(pattern[:, -1], members, "head key, option key -> option head")
    return torch.stack([by_evidence, by_decision], dim=-1)


def contrast_weights(event: DecisionEvent) -> Float[Tensor, " option"]:
    """Weights whose dot product with an option statistic is its contrast; 0 for role `other`."""
    roles = Roles.of(event)
    relevant, far = roles.relevant.double(), roles.far.double()
    return relevant / relevant.sum() - far / far.sum()
