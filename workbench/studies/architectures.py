"""Tiny random models of every architecture: the workbench against plain hooks.

The other side is written without the bridge and the engine: the Hugging Face model itself, one
whole forward per patch, and PyTorch hooks on what enters attention's output projection. Compared
are logits of prompts of several lengths run side by side, every head patched at the decision and
over a span, and branches with tokens of their own.

Differences count in standard deviations of the logits over the vocabulary, less what is added to
all of them. In float32 no row may differ by more than 1e-4. In half precision the root mean square
over all rows may be three times that of two plain ways in the same forwards: eager attention and
torch's fused one, or the last bit of every head's output as it is and moved. (Not the largest row:
rounding sends a token to another expert now and then, in any way of computing.)
"""

import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.errors import InputError, first_line
from workbench.heads import Head
from workbench.models.branches import Branch, Edit
from workbench.models.forked import FORKED, forked_forward, patch_heads
from workbench.models.hooked import HookedModel
from workbench.studies.tiny_models import VOCABULARY, names, tiny_model, type_of

Outcome = Literal["equal", "refused", "not built", "wrong", "failed"]
"""What came out for an architecture."""
FAULTS = ("wrong", "failed")

DTYPES = (torch.float32, torch.bfloat16)
LENGTH, SHORT, SPAN = 40, 29, 9
ALLOWED = 1e-4
WAYS = 3

Edits = Sequence[tuple[int, int, Tensor]]
"""Layer, head, and its output over the last positions."""


@dataclass(frozen=True)
class Row:
    """One architecture in one dtype; differences in standard deviations of the logits."""

    architecture: str
    model_type: str
    dtype: str
    outcome: Outcome
    engine: str
    reason: str
    difference: float
    allowed: float
    effect: float
    """The largest change that a patch made: what the difference is to be compared with."""
    seconds: float

    @property
    def words(self) -> str:
        """The outcome, with the engine that ran or the reason why none did."""
        if self.outcome == "equal":
            slow = "" if self.engine == "shared forward" else f": {self.reason}"
            return f"equal ({self.engine}{slow})"
        if self.outcome == "wrong":
            return (
                f"WRONG: off by {self.difference:.2g}, allowed {self.allowed:.2g} ({self.engine})"
            )
        return f"{self.outcome}: {self.reason}"

    def __str__(self) -> str:
        return f"{self.architecture}, {self.dtype}: {self.words}"


class PlainModel:
    """A Hugging Face model and hooks on what enters its output projections."""

    PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "Wo", "out_lin")
    LISTS = ("layers", "h", "blocks", "layer", "block")

    def __init__(self, model: Any) -> None:
        self.model = model
        self.heads: int = model.config.get_text_config().num_attention_heads
        self.projections = [self._projection(layer) for layer in self._layers()]

    def _layers(self) -> nn.ModuleList:
        count = self.model.config.get_text_config().num_hidden_layers
        return next(
            module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList)
            and name.rsplit(".", 1)[-1] in self.LISTS
            and len(module) == count
        )

    def _projection(self, layer: nn.Module) -> nn.Module:
        for name, module in layer.named_modules():
            *parents, own = name.split(".")
            inside = any("attn" in part.lower() or "attention" in part for part in parents)
            if inside and own in self.PROJECTIONS and hasattr(module, "weight"):
                return module
        raise LookupError("no output projection found by the plain hooks")

    @contextmanager
    def hooked(self, change: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
        """Let `change` see and replace every layer's head outputs, [position, head, width]."""

        def hook(layer: int) -> Callable[..., Any]:
            def function(module: nn.Module, args: tuple[Tensor, ...]) -> Any:
                z = args[0].reshape(-1, self.heads, args[0].shape[-1] // self.heads)
                changed = change(layer, z.clone())
                return None if changed is None else (changed.reshape(args[0].shape), *args[1:])

            return function

        with ExitStack() as stack:
            for layer, module in enumerate(self.projections):
                handle = module.register_forward_pre_hook(hook(layer))
                stack.callback(handle.remove)
            yield

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> Float[Tensor, "position d_vocab"]:
        """One forward."""
        return self.model(torch.tensor([list(tokens)]), use_cache=False).logits[0].float()

    def outputs(self, tokens: Sequence[int]) -> list[Float[Tensor, "position head d_head"]]:
        """Every layer's head outputs."""
        kept: dict[int, Tensor] = {}
        with self.hooked(lambda layer, z: kept.update({layer: z})):
            self.logits(tokens)
        return [kept[layer] for layer in range(len(self.projections))]

    def patched(self, tokens: Sequence[int], edits: Edits) -> Float[Tensor, "position d_vocab"]:
        """One forward with some heads' outputs replaced at the last positions."""

        def change(layer: int, z: Tensor) -> Tensor:
            for at, head, value in edits:
                if at == layer:
                    z[-len(value) :, head] = value.to(z)
            return z

        with self.hooked(change):
            return self.logits(tokens)

    def moved(self, tokens: Sequence[int]) -> Float[Tensor, "position d_vocab"]:
        """One forward with the last bit of every head's output moved."""
        generator = torch.Generator().manual_seed(0)

        def change(layer: int, z: Tensor) -> Tensor:
            bits = torch.rand(z.shape, generator=generator) * 2 - 1
            return (z.float() * (1 + torch.finfo(z.dtype).eps * bits)).to(z)

        with self.hooked(change):
            return self.logits(tokens)

    @contextmanager
    def attention(self, implementation: str) -> Iterator[bool]:
        """Another implementation of attention for a while; whether the model has it."""
        before = self.model.config._attn_implementation
        try:
            self.model.set_attn_implementation(implementation)
        except (ValueError, ImportError):
            yield False
        else:
            yield True
        finally:
            self.model.set_attn_implementation(before)


@dataclass(frozen=True)
class _Prompts:
    base: list[int]
    other: list[int]
    short: list[int]

    @classmethod
    def drawn(cls, seed: int) -> "_Prompts":
        generator = torch.Generator().manual_seed(seed)
        base, other, short = (
            torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
            for length in (LENGTH, LENGTH, SHORT)
        )
        return cls(base, other[:-SPAN] + base[-SPAN:], short)


def check_architecture(name: str, dtype: torch.dtype, seed: int = 0) -> Row:
    """Build, load and compare one architecture; nothing it raises gets out."""
    started = time.monotonic()

    def row(outcome: Outcome, reason: str = "", engine: str = "", *numbers: float) -> Row:
        difference, allowed, effect = numbers or (float("nan"),) * 3
        seconds = round(time.monotonic() - started, 2)
        kind = str(dtype).removeprefix("torch.")
        return Row(
            *(name, type_of(name), kind, outcome, engine, reason),
            *(difference, allowed, effect, seconds),
        )

    try:
        with torch.no_grad():
            tiny_model(name, torch.float32, seed)(torch.tensor([[3, 4, 5]]), use_cache=False)
    except Exception as error:  # it wants a configuration, or an input, of its own
        return row("not built", f"{type(error).__name__}: {first_line(error)}")
    try:
        model = HookedModel.from_pretrained_model(tiny_model(name, dtype, seed), name=name)
        reference = tiny_model(name, dtype, seed)
        with suppress(ValueError, ImportError):  # it has one implementation of its own
            reference.set_attn_implementation("eager")
        plain = PlainModel(reference)
        numbers = _compare(model, plain, _Prompts.drawn(seed))
    except InputError as error:
        return row("refused", str(error))
    except Exception as error:
        return row("failed", f"{type(error).__name__}: {first_line(error)}")
    reason = model.shortcuts[FORKED].reason
    engine = "one forward per patch" if reason else "shared forward"
    outcome = "equal" if numbers[0] <= numbers[1] else "wrong"
    return row(outcome, reason, engine, *numbers)


def _compare(model: HookedModel, plain: PlainModel, prompts: _Prompts) -> tuple[float, ...]:
    """Largest difference, what is allowed, and the largest effect of a patch."""
    heads = list(itertools.product(range(model.info.n_layers), range(model.info.n_heads)))
    source = plain.outputs(prompts.other)
    jobs = _jobs(prompts, source, heads)
    with ExitStack() as stack:
        first = _plain(plain, jobs)
        second = first
        if stack.enter_context(plain.attention("sdpa")):
            second = _plain(plain, jobs)
    found = _workbench(model, prompts, torch.stack(source), heads)
    spread = _spread(first).mean()
    error, effect = _spread(found - first), _spread(first[3 : 3 + 2 * len(heads)] - first[:1])
    if model.dtype == torch.float32:
        return float(error.max() / spread), ALLOWED, float(effect.max() / spread)
    moved = plain.moved(prompts.base)[-SPAN:] - plain.logits(prompts.base)[-SPAN:]
    noise = max(_mean(_spread(first - second)), _mean(_spread(moved))) / float(spread)
    allowed = torch.finfo(model.dtype).eps + WAYS * noise
    return _mean(error) / float(spread), allowed, float(effect.max() / spread)


@dataclass(frozen=True)
class _Job:
    """A plain forward: tokens, edits, and which of the last positions are compared."""

    tokens: list[int]
    edits: Edits = ()
    last: int = 1


def _jobs(prompts: _Prompts, source: list[Tensor], heads: Sequence[Head]) -> list[_Job]:
    """In the order in which `_workbench` has its rows."""
    base = prompts.base
    alone = [_Job(tokens) for tokens in (base, prompts.other, prompts.short)]
    patches = [
        _Job(base, [(layer, head, source[layer][-last:, head])])
        for last in (1, SPAN)
        for layer, head in heads
    ]
    new = [_Job([*base[:at], *tokens], last=len(tokens)) for at, tokens in _NEW]
    layer, head = heads[len(heads) // 2]
    edited = _Job(base, [(layer, head, source[layer][-SPAN:, head])], last=SPAN)
    return [*alone, *patches, *new, edited]


_NEW = ((LENGTH, [5, 6, 7]), (LENGTH // 2, [4, 5]))
"""Where branches with new tokens start, and their tokens."""


def _plain(plain: PlainModel, jobs: Sequence[_Job]) -> Float[Tensor, "row d_vocab"]:
    return torch.cat([plain.patched(job.tokens, job.edits)[-job.last :] for job in jobs])


def _workbench(
    model: HookedModel, prompts: _Prompts, source: Tensor, heads: Sequence[Head]
) -> Float[Tensor, "row d_vocab"]:
    """The same rows, by what a run calls."""
    base = prompts.base
    runs = model.run([base, prompts.other, prompts.short])
    rows = [torch.stack([run.logits for run in runs])]
    rows += [
        patch_heads(model, base, source[:, -last:], [[head] for head in heads])
        for last in (1, SPAN)
    ]
    layer, head = heads[len(heads) // 2]
    edit = Edit(layer, head, slice(None), source[layer, -SPAN:, head])
    branches = [Branch(at, tokens) for at, tokens in _NEW]
    branches.append(Branch(LENGTH - SPAN, base[-SPAN:], [edit]))
    return torch.cat([*rows, *forked_forward(model, base, branches)]).float()


def _spread(rows: Float[Tensor, "row d_vocab"]) -> Float[Tensor, " row"]:
    return rows.std(dim=-1, correction=0)


def _mean(spread: Float[Tensor, " row"]) -> float:
    return float(spread.square().mean().sqrt())


def run_architectures(
    only: Sequence[str] = (), seed: int = 0, progress: Callable[[Row, int, int], None] | None = None
) -> pd.DataFrame:
    """Check architectures in every dtype of `DTYPES`; one row each, columns as `Row`.

    `only` names architectures, or types with all their variants; all unless given. What is refused
    or not built in float32 is not tried again.

    Raises:
        InputError: a name that is neither.
    """
    chosen = _chosen(only)
    rows: list[Row] = []
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        for done, name in enumerate(chosen, start=1):
            for dtype in DTYPES:
                rows.append(check_architecture(name, dtype, seed))
                if progress is not None:
                    progress(rows[-1], done, len(chosen))
                if rows[-1].outcome in ("refused", "not built"):
                    break
    return pd.DataFrame([asdict(row) for row in rows])


def _chosen(only: Sequence[str]) -> list[str]:
    unknown = sorted({*only} - {*names()})
    if unknown:
        raise InputError(
            f"{unknown[0]!r} is no architecture; the first are {', '.join(names()[:5])}"
        )
    return [name for name in names() if not only or name in only or type_of(name) in only]


@contextmanager
def _quiet() -> Iterator[None]:
    """Architectures that are not supported are the table's to say."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def summary(table: pd.DataFrame) -> list[str]:
    """How many architectures came out how, in words."""
    lines = []
    for outcome in ("equal", "refused", "not built", "wrong", "failed"):
        rows = table.loc[table["outcome"] == outcome]
        lines.append(
            f"{outcome}: {rows['architecture'].nunique()} architectures and variants "
            f"({rows['model_type'].nunique()} types)"
        )
    return lines
