"""What processes of one launch gain on scores and patches: seconds of both on the same prompts.

Each process draws the same random weights of a shape on a GPU of its own, and takes its share of
the prompts, as `workbench score` and `workbench patch` do. Run it with one process and with more.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.utilities.devices import get_device

from workbench.analysis.patching.patching import sweep_event
from workbench.analysis.scores.scores import RECORDS, EventScores, score_event
from workbench.bench.distill_plan import find_shape
from workbench.bench.shapes import random_model
from workbench.bench.ways import spread_evenly
from workbench.files import write_text
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.processes import Alone, Processes, Work
from workbench.progress import Reporter
from workbench.prompts.make import make_prompts
from workbench.prompts.prompt import DecisionEvent
from workbench.runs.config import POSITIONS
from workbench.runs.manifest import versions
from workbench.team import Team

SCHEMA = "workbench.steps/1"


def bench_steps(
    shape: str,
    out: Path,
    *,
    n_prompts: int = 64,
    n_heads: int = 32,
    dtype: str = "bfloat16",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Seconds of scoring every head, and of patching some at both positions, on all prompts.

    Raises:
        InputError: an unknown shape or dtype.
    """
    here = Processes.here()
    reporter = here.reporter(reporter)
    with reporter.step("model"):
        device: Any = loading.parse_device(here.device() or get_device())
        plain = random_model(find_shape(shape), dtype, device)
        model = HookedModel.from_pretrained_model(plain, None, shape, "random")
        prompts = make_prompts(n_prompts=n_prompts)
    every = [(a, b) for a in range(model.info.n_layers) for b in range(model.info.n_heads)]
    groups = [[head] for head in spread_evenly(every, min(n_heads, len(every)))]

    weights = model.output_weights()

    def scored(events: Sequence[DecisionEvent]) -> Iterator[EventScores]:
        return (score_event(model, event, weights) for event in events)

    def patched(events: Sequence[DecisionEvent]) -> Iterator[pd.DataFrame]:
        return (sweep_event(model, event, groups, POSITIONS) for event in events)

    works: dict[str, Work] = {"score": scored, "patch": patched}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "versions": versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": here.world,
        "shape": find_shape(shape),
        "dtype": dtype,
        "prompts": len(prompts),
        "events": len(prompts.events),
        "tokens": sum(len(event.clean) for event in prompts.events) / len(prompts.events),
        "heads_patched": len(groups),
    }
    for work in works.values():
        next(iter(work(prompts.events[:1])))  # for warming up
    with met(out, here, reporter) as together:
        for name, work in works.items():
            together.begin_step()
            together.told(lambda: None)
            started = time.perf_counter()
            with reporter.step(name, len(prompts.events)) as advance:
                done = together.spread(
                    work, prompts.events, advance, everywhere=True, records=RECORDS
                )
            result[name] = {"seconds": time.perf_counter() - started, "events": len(done)}
            if here.is_main:
                write_text(out, json.dumps(result, indent=1) + "\n")
    return result


@contextmanager
def met(out: Path, here: Processes, reporter: Reporter) -> Iterator[Alone]:
    """The processes of this launch, in a hidden folder beside a file, which goes when they part."""
    folder = out.parent / f".{out.name}"
    try:
        together = Team.meet(folder, here=here, reporter=reporter)
        with together.failing():
            together.everyone()
            yield together
        together.close()
    finally:
        if here.is_main:
            with suppress(OSError):  # it was never made, or is not empty
                folder.rmdir()
