"""Compiled blocks give what they gave, and are read from outside without being compiled again."""

import inspect
from functools import partial

import jaxtyping
import pytest
import torch
from torch._dynamo.utils import counters

from workbench.distill.config import TERMS, LossConfig
from workbench.distill.losses import compiling as fusing
from workbench.distill.losses.term import SIDES
from workbench.distill.reading.capture import Capture
from workbench.distill.reading.parts import attention_modules
from workbench.distill.reading.positions import ChainRows, Marks, choose_queries, sampled_positions
from workbench.distill.reading.wanted import Wanted
from workbench.distill.training.terms import Models, Terms

WANTED = Wanted(
    patterns=frozenset({(0, 1)}),
    writes=frozenset({(1, 2)}),
    hidden=frozenset({0}),
    scale=True,
    logits=True,
)


@pytest.fixture
def fuse(monkeypatch):
    """`fuse` as on CUDA, but that the graphs are run as they are."""

    def call(model) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(fusing, "_can_compile", lambda first: True)
            patch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
            fusing.fuse(attention_modules(model)[1])

    torch._dynamo.reset()
    yield call
    torch._dynamo.reset()


def test_readings_of_compiled_blocks_are_the_same_and_cost_no_further_graphs(make_model, fuse):
    model = make_model(0)
    names = list(model.state_dict())
    capture = Capture(model, WANTED)
    batches = [torch.randint(1, 700, (2, width)) for width in (9, 12, 17, 23)]
    positions = torch.tensor([[3, 5], [2, 8]])

    def read(ids):
        found = capture.run(lambda: model(input_ids=ids, use_cache=False), positions)
        values = [found.patterns[0, 1], found.written[1, 2], found.hidden[0], found.logits]
        model.zero_grad()
        sum(value.square().sum() for value in values).backward()
        return [value.detach() for value in values], model.model.layers[0].mlp.up_proj.weight.grad

    before = [read(ids) for ids in batches]
    fuse(model)
    assert list(model.state_dict()) == names
    counters.clear()
    graphs = []
    for ids, (values, gradient) in zip(batches, before, strict=True):
        found, found_gradient = read(ids)
        for one, other in zip(found, values, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found_gradient, gradient, rtol=1e-3, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[1] == graphs[-1]
    assert not counters["graph_break"]


def test_all_terms_but_one_are_one_graph_and_give_the_same(make_model, headmap, batch, monkeypatch):
    queries = choose_queries(batch, "options", ["rows", "options", "early", "late"])
    batch = {**batch, "queries": queries}
    models = dict(zip(SIDES, (make_model(0), make_model(1)), strict=True))
    config = LossConfig(**dict.fromkeys(TERMS, 1.0))
    sides = {}

    def losses():
        terms = Terms(Models(config, *models.values(), headmap, [((0, 1), (0, 2))]))
        if not sides:
            positions = sampled_positions(batch, config.rows)
            for side, model in models.items():
                sides[side] = Capture(model, terms.wanted[side]).run(
                    partial(model, input_ids=batch["input_ids"], use_cache=False),
                    positions,
                    queries,
                )
        return {name: loss.total for name, loss in terms(batch, *sides.values()).items()}

    torch.manual_seed(0)  # of the hidden states' projections
    plain = losses()
    # Checks of annotations cannot be traced, and are there in tests alone.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for marks, name in ((Marks, "__init__"), (ChainRows, "__init__"), (Marks, "among_read")):
        monkeypatch.setattr(marks, name, inspect.unwrap(getattr(marks, name)))
    monkeypatch.setattr(fusing, "_can_compile", lambda first: isinstance(first, dict))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    torch.testing.assert_close(losses(), plain)
    assert counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


def test_nothing_is_compiled_on_a_cpu(make_model):
    model = make_model(0)
    fusing.fuse(attention_modules(model)[1])
    assert all("forward" not in vars(block) for block in attention_modules(model)[1])
