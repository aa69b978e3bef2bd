"""A small random model with a tokenizer, its prompts, and tables as a run has them."""

import numpy as np
import pandas as pd
import pytest
from fixtures.distillation import build

from workbench.explore.state import State
from workbench.models.hooked import HookedModel
from workbench.phases import RUNS
from workbench.prompts.events import make_events
from workbench.prompts.templates import PlainTemplate


@pytest.fixture(scope="session")
def reader(tokenizer) -> HookedModel:
    return HookedModel.from_pretrained_model(
        build(vocab_size=len(tokenizer), context=2048), tokenizer
    )


@pytest.fixture(scope="session")
def notes(small_task, tokenizer):
    return make_events(small_task, PlainTemplate(), tokenizer, n_prompts=3, seed=0)


@pytest.fixture(scope="session")
def tables(reader, notes) -> dict[str, pd.DataFrame]:
    """Two heads patched, all heads scored; 1-2 restores the more, the later the event stands."""
    shape = reader.info.n_layers, reader.info.n_heads
    heads = pd.DataFrame(list(np.ndindex(*shape)), columns=["layer", "head"])
    value = heads["layer"] + heads["head"] / 10
    scores = heads.assign(coarse=value, coarse_low=value - 1, coarse_high=value + 1, n=12)
    some = {"half": "verify", "low": 0.1, "high": 0.9, "n": 9, "n_excluded": 0, "intervention": "z"}
    some |= {"positions": "span", "group": "nominated", "measure": "coarse_restore"}
    patching = pd.DataFrame({"layer": [0, 1], "head": [1, 2], "effect": [0.25, -1.5], **some})
    keys = [{"id": one.id, "event": one.event, "half": "verify"} for one in notes]
    level = {"focus": 0.1, "confusion": 0.8, "swap": -0.5, "counts_far": True, "counts_near": True}
    level |= {f"{name}_margin": 1.0 for name in ("focus", "confusion", "swap")}
    clean = {**level, "focus": 0.9, "confusion": 0.2}
    variants = {"clean": clean, "far": level, "near": level}
    baseline = [
        {**key, "variant": name, **values} for key in keys for name, values in variants.items()
    ]
    place = {"layer": 1, "head": 2, "positions": "span"}
    events = [
        {**place, "run": run, **key, **level, "focus": 0.1 + 0.2 * at}
        for at, key in enumerate(keys)
        for run in RUNS
    ]
    frames = {"patching_events": pd.DataFrame(events), "baseline": pd.DataFrame(baseline)}
    return {"scores": scores, "patching": patching, **frames}


@pytest.fixture
def state(reader, notes, tables) -> State:
    return State(reader, notes, tables)


@pytest.fixture
def ask(state):
    """A view of the state, as the widget asks for it."""

    def view(*parts: str, **other):
        plain = {"prompt": 0, "text": None, "changes": {}, "head": "1-2", "query": None}
        return state.reply({"do": "view", "parts": list(parts), **plain, **other})

    return view
