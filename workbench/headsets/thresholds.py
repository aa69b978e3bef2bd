"""When a head enters a pool: the one place of these limits, their ranges and help texts."""

from typing import Annotated

from pydantic import Field

from workbench.files import settings

Rate = Annotated[float, Field(gt=0, le=1, description="Largest q value of a pooled head's score.")]
RestoreLow = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="A pooled head's interval lies above this.")
]
StrictLow = Annotated[
    float,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="The same for what a head adds to others, of which many are asked, and for "
        "what a suppressor takes away.",
    ),
]
ReadOutShare = Annotated[
    float,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Share of its span effect at the decision from which a head is read-out.",
    ),
]

Alike = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Smaller of a label carrier's two margins, Focus and near misses, as a share "
        "of the larger: below it, the head is of the phase of the larger.",
    ),
]
Swapped = Annotated[
    float,
    Field(gt=0, le=1, description="Its label swap as a share of the larger margin, at the least."),
]
PassedShare = Annotated[
    float,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Share of its effect that a head has by passing on from which it is a mover.",
    ),
]


@settings
class Thresholds:
    """When a head enters a pool, and when it counts as read-out.

    Raises:
        InputError: a value outside its range.
    """

    false_discovery_rate: Rate = 0.05
    min_restore_low: RestoreLow = 0.05
    read_out_share: ReadOutShare = 0.8
    alike: Alike = 0.65
    swapped: Swapped = 0.4
    passed_share: PassedShare = 0.8
    min_strict_low: StrictLow = 0.1
