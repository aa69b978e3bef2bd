"""The parts of a head-set file, key by key: model, prompts, tokenizer, method, heads, pools."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.roles import HeadPool

Control = Literal["random", "norm"]
Measure = Literal[
    "coarse_restore",
    "coarse_disrupt",
    "refine_reduce",
    "refine_boost",
    "refine_boost_abs",
    "cluster_restore",
    "label_swap",
    "coarse_restore_margin",
    "coarse_disrupt_margin",
    "refine_reduce_margin",
    "refine_boost_margin",
    "cluster_restore_margin",
    "label_swap_margin",
    "reduce_minus_restore",
    "reduce_minus_restore_margin",
    "cluster_minus_restore_margin",
    "coarse_passed_margin",
    "refine_passed_margin",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
HeadName = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)-(0|[1-9][0-9]*)$")]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """What every part of the file shares: no coercion, no unknown key, no NaN, no change."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        protected_namespaces=(),
    )


class Effect(Record):
    """A causal effect with its 95 % bootstrap interval; `n` events counted."""

    effect: float | None
    low: float | None
    high: float | None
    n: Count


class ControlEffect(Effect):
    """Mean effect over control sets, inside the widest of their intervals; `n` of the smallest."""

    draws: Size


Effects = dict[Measure, Effect]


class BaseInfo(Record):
    """The model that an adapter was merged into."""

    name: str
    revision: str | None
    weights_sha256: Sha256


class AdapterInfo(Record):
    """The adapter that was merged: hash of its file, its kind, and its rank where it has one."""

    name: str
    sha256: Sha256
    kind: str
    rank: Size | None
    trained_on: Sha256 | None = None
    """Weights of the base that it was trained on; null where nothing says so."""


class ModelInfo(Record):
    """The model that the heads belong to; `weights_sha256` is null when nobody hashed them."""

    name: str
    revision: str | None
    architecture: str
    n_layers: Size
    n_heads: Size
    n_kv_heads: Size
    d_model: Size
    weights_sha256: Sha256 | None
    base: BaseInfo | None = None
    adapter: AdapterInfo | None = None
    quantisation: dict[str, Size] | None = None
    """Tensors by storage type of a file that was dequantised; null where nothing was."""


class PromptsInfo(Record):
    """How many prompts of which task chose and verified; made by `describe_prompts`."""

    task: str
    n: Size
    sha256: Sha256
    n_choose: Count
    n_verify: Count
    split_seed: Count
    choose_sha256: Sha256
    verify_sha256: Sha256


class TokenizerInfo(Record):
    """What turned text into tokens; `template` is the prompt template's name or its source."""

    sha256: Sha256 | None
    template: str | None
    special_tokens: dict[str, str]


class Versions(Record):
    """Versions of the packages whose numerics or defaults decide the result."""

    workbench: str
    transformer_lens: str
    transformers: str
    torch: str


class MethodInfo(Record):
    """How the heads were found. Effects in the file are over the span: the whole aligned suffix."""

    versions: Versions
    dtype: str
    attention_implementation: str
    compatibility_mode: bool
    thresholds: dict[str, float]
    seeds: dict[str, Count]
    positions: Literal["span"]
    engine: str | None = None
    """How patched runs were computed, in words; null in files that do not say."""
    rules: dict[HeadPool, str] = {}
    """Pool → the rule that made it: "margins", or the score whose first heads were taken; empty in
    files that do not say."""


class HeadScores(Record):
    """Observational scores and their false discovery rates (`_q`); null where not computed."""

    coarse: float | None
    coarse_q: Share | None
    refine: float | None
    refine_q: Share | None
    refine_direct: float | None
    coarse_attribution: float | None


class Head(Record):
    """One pooled head: `weight` sums to 1 over its pool, `tasks` counts where it qualified.

    `decision_share` is the share of its span effect that is there at the decision token already;
    a `read_out` head has nearly all of it there. `effects` come from the held-out half.
    `chosen_share` is the share of resamples of the prompts that choose it for this pool,
    `passed_share` the share of its effect that is left where it only passes on what other heads
    wrote; both None where that was not asked.
    """

    layer: Count
    head: Count
    kv_head: Count
    pool: HeadPool
    read_out: bool
    decision_share: float | None
    weight: Share
    tasks: Size
    scores: HeadScores
    effects: Effects
    chosen_share: Share | None = None
    passed_share: float | None = None


class Area(Record):
    """Area under the faithfulness curve of one order of heads, over the share of heads.

    Of "sufficiency", higher is better; of "necessity", what remains without the first heads, lower.
    """

    order: str
    kind: Literal["necessity", "sufficiency"]
    cpr: float | None
    low: float | None
    high: float | None


class PoolInfo(Record):
    """All heads of one pool patched together, and the same for control sets of the same size."""

    pool: HeadPool
    heads: tuple[HeadName, ...]
    effects: Effects
    controls: dict[Control, dict[Measure, ControlEffect]]
    areas: tuple[Area, ...] = ()
    """Of a phase's pool, for its readout (Focus or Confusion), the pool's order first."""
