"""The settings of a run: the one source of defaults, ranges and help texts.

Functions read the defaults, and the command line makes its flags from these fields.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings
from workbench.headsets.thresholds import (
    Alike,
    PassedShare,
    Rate,
    ReadOutShare,
    RestoreLow,
    StrictLow,
    Swapped,
    Thresholds,
)
from workbench.phases import Intervention
from workbench.prompts.choices import KINDS, LIMITS, OWN_TASK, check_task, check_template

Position = Literal["decision", "span"]
POSITIONS: tuple[Position, ...] = get_args(Position)
HEAD_CHOICES = ("nominated", "screen", "all")
PROMPT_SETTINGS = ("task", "n_prompts", "template", "split", "n_options", "way", *LIMITS)


@settings
class RunConfig:
    """Settings of a run.

    Raises:
        InputError: a value outside its range.
    """

    task: Annotated[
        str,
        Field(
            description="What the prompts that are made here ask for: "
            f"{', '.join(kind.form for kind in KINDS.values())}; auto: what the model was trained "
            "on, otherwise the first."
        ),
    ] = OWN_TASK
    n_prompts: Annotated[
        int,
        Field(ge=2, description="Prompts to make; one half selects heads, the other is held out."),
    ] = 80
    template: Annotated[
        str,
        Field(
            description="How prompts read. plain: as the bundled model was trained; chat: in the "
            "model's chat form, one mention asked about, the reply a letter; chat-single: no other "
            "mention is shown; chat-list: all mentions in order; think: with a place for thoughts; "
            "of documents also a form, by name or file, that shows them as they are; auto: plain "
            "for models trained here, for others the form of the documents, else chat where they "
            "have a chat form."
        ),
    ] = "auto"
    split: Annotated[
        Literal["seen", "unseen"],
        Field(
            description="Categories that the bundled model was trained on, or not; of a folder, "
            "its training or its test documents."
        ),
    ] = "unseen"
    n_options: Annotated[
        int | None,
        Field(
            ge=4,
            le=200,
            description="Options of a prompt, up to 26, of documents in a form up to 200; the "
            "task's own number unless given, 20 of documents.",
        ),
    ] = None
    way: Annotated[
        Literal["plain", "chat", "think"] | None,
        Field(
            description="How a form asks about a document: plain text, the model's chat form, or "
            "there with a place for thoughts; unless given, chat where the model has a chat form."
        ),
    ] = None
    n_read: Annotated[
        int | None, Field(ge=2, description="Of a folder: documents read of each split (2,000).")
    ] = None
    n_near: Annotated[
        int | None, Field(ge=1, description="Of a folder: near options of a prompt at most (4).")
    ] = None
    n_mentions: Annotated[
        int | None,
        Field(ge=1, description="Of a folder: right labels that a prompt offers at most (3)."),
    ] = None
    n_retrieved: Annotated[
        int | None, Field(ge=2, description="Of a folder: labels retrieved for a document (1,000).")
    ] = None
    max_tokens: Annotated[
        int | None,
        Field(
            ge=16,
            description="Of a folder: tokens of a prompt; longer ones lose passages (the model's "
            "context, 4,096 at most).",
        ),
    ] = None
    seed: Annotated[
        int, Field(ge=0, description="Seed of prompts, halves, resamples and controls.")
    ] = 0
    n_resamples: Annotated[
        int, Field(ge=1, description="Bootstrap resamples of prompts behind every interval.")
    ] = 2000
    n_permutations: Annotated[
        int,
        Field(ge=1, description="Permutations of roles behind every p-value; at least 20 a head."),
    ] = 2000
    heads: Annotated[
        str,
        Field(
            description="Heads to patch: nominated by the scores, screen (by first-order "
            "estimates of what patching does), all, or by name: 4-3,5-1."
        ),
    ] = "nominated"
    positions: Annotated[
        tuple[Position, ...], Field(min_length=1, description="Where heads are patched.")
    ] = POSITIONS
    intervention: Annotated[
        Intervention,
        Field(
            description="What of a head is patched. z: its output, what it carries; pattern: its "
            "attention rows over the patched run's values, where it looks. Pools are made from z."
        ),
    ] = "z"
    n_nominated: Annotated[int, Field(ge=1, description="Heads that each score nominates.")] = 12
    n_screened: Annotated[
        int, Field(ge=1, description="Heads that each patched run's estimates nominate.")
    ] = 16
    n_controls: Annotated[
        int, Field(ge=0, description="Random heads patched beside the nominated ones.")
    ] = 4
    n_paired: Annotated[
        int,
        Field(
            ge=0,
            description="Nominated heads that are patched in pairs, too; with 0 none is, and no "
            "set of all less one.",
        ),
    ] = 10
    false_discovery_rate: Rate = Thresholds.false_discovery_rate
    min_restore_low: RestoreLow = Thresholds.min_restore_low
    read_out_share: ReadOutShare = Thresholds.read_out_share
    alike: Alike = Thresholds.alike
    swapped: Swapped = Thresholds.swapped
    passed_share: PassedShare = Thresholds.passed_share
    min_strict_low: StrictLow = Thresholds.min_strict_low
    chain_scores: Annotated[
        str,
        Field(
            description="Table `scores` of `study paper`, .csv or .parquet: pools are its first "
            "heads, the paper's rule, whatever patching says."
        ),
    ] = ""
    n_chain: Annotated[int, Field(ge=1, description="Heads of each pool by the paper's rule.")] = 8
    draws: Annotated[int, Field(ge=0, description="Random control sets per pool.")] = 20
    sources: Annotated[
        str, Field(description="Heads that paths start from: 2-5,2-7; unless given, the pooled.")
    ] = ""
    destinations: Annotated[
        str, Field(description="Heads that paths lead into; unless given, the pooled.")
    ] = ""

    def __post_init__(self) -> None:
        check_template(self.template, check_task(self.task))
        if len(set(self.positions)) != len(self.positions):
            raise InputError(f"positions are {', '.join(self.positions)}: name each once")

    def only(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Some of the settings, as JSON has them."""
        values = asdict(self)
        return {
            name: list(values[name]) if isinstance(values[name], tuple) else values[name]
            for name in names
        }

    def of_prompts(self) -> dict[str, Any]:
        """Arguments of `make_prompts` for these settings."""
        return self.only((*PROMPT_SETTINGS, "seed"))


DEFAULTS = RunConfig()
