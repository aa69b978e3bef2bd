import pytest
import torch
from fixtures.tiny_model import HEADS

from workbench.analysis.patching.patching import sweep_event
from workbench.analysis.patching.transplants import PlainRun, patched_logits
from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.errors import InputError
from workbench.models.hooks import replace_pattern
from workbench.phases import RUNS

SETS = [[(0, 1)], [(0, 2), (2, 3)], HEADS]


def patterns(model, tokens):
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.info.n_layers)]
    run = model.run([tokens], names)[0].activations
    return [run[name] for name in names]


def by_hand(model, event, base, source, heads, count):
    """The row of the other run, its weight on the evidence spread as the base's own."""
    theirs, own = (patterns(model, event.variant(name)) for name in (source, base))
    n, m = len(event.variant(base)), len(event.variant(source))
    hooks = []
    for layer, head in heads:
        row = theirs[layer][head, m - count :].clone()
        before = own[layer][head, n - count :]
        if n != m:  # tokens 1 to n - suffix are the evidence
            a, b = (length - event.aligned_suffix for length in (n, m))
            middle = before[:, 1:a] / before[:, 1:a].sum(-1, keepdim=True)
            middle = middle * row[:, 1:b].sum(-1, keepdim=True)
            row = torch.cat([row[:, :1], middle, row[:, b:]], dim=-1)
        hooks.append(replace_pattern(layer, (0, head, torch.arange(n - count, n)), row))
    logits = model.logits_at(torch.tensor([event.variant(base)]), [n - 1], hooks)[0, 0]
    focus, confusion = focus_confusion(select_options(logits, event), Roles.of(event))
    return focus.item(), confusion.item()


def test_patterns_of_every_run_equal_plain_hooks(model, event):
    assert len(event.far) != len(event.clean)
    z, frame = (
        sweep_event(model, event, SETS, intervention=name).set_index(["target", "positions", "run"])
        for name in ("z", "pattern")
    )
    for (target, positions, run), row in frame.iterrows():
        count = 1 if positions == "decision" else event.aligned_suffix
        expected = by_hand(model, event, *RUNS[run], SETS[target], count)
        assert (row.focus, row.confusion) == pytest.approx(expected, abs=1e-5)
    assert (z["focus"] - frame["focus"]).abs().max() > 1e-3


@pytest.mark.parametrize("intervention", ["z", "pattern"])
def test_scattered_positions_are_patched_as_positions_one_by_one(model, event, intervention):
    """Only where a position is named, and its counterpart may stand elsewhere."""
    clean, far = (PlainRun.of(model, tokens, 14) for tokens in (event.clean, event.far))
    n, m = len(event.clean), len(event.far)
    pairs = [(n - back, m - back) for back in (9, 8, 4, 1)]
    options = {"intervention": intervention, "columns": event.option_tokens}
    [one] = patched_logits(clean, far, pairs, [[(1, 2)]], **options)
    theirs = far.rows[1][2] if intervention == "pattern" else far.z[1][:, 2]

    def replace(tensor, hook):
        for at, taken in pairs:
            if intervention == "pattern":
                weights = theirs[taken - far.first]
                own = clean.rows[1][2][at - clean.first]
                middle = own[1:4] / own[1:4].sum() * weights[1:5].sum()
                tensor[0, 2, at] = torch.cat([weights[:1], middle, weights[5:]])
            else:
                tensor[0, at, 2] = theirs[taken - far.first]
        return tensor

    name = {"pattern": "hook_pattern", "z": "hook_z"}[intervention]
    hooks = [(f"blocks.1.attn.{name}", replace)]
    logits = model.logits_at(torch.tensor([event.clean]), [n - 1], hooks)[0, 0]
    assert one == pytest.approx(logits[event.option_tokens], abs=1e-5)


def test_what_cannot_be_patched_is_refused(model, event):
    with pytest.raises(InputError, match="'values' is not one of z, pattern"):
        sweep_event(model, event, SETS, intervention="values")
    clean, far = (PlainRun.of(model, tokens, 3) for tokens in (event.clean, event.far))
    options = {"intervention": "pattern", "columns": event.option_tokens}
    with pytest.raises(InputError, match="no position of the two runs corresponds"):
        patched_logits(clean, far, [], SETS, **options)
    with pytest.raises(InputError, match="before those that were kept"):
        patched_logits(clean, far, [(0, 0)], SETS, **options)
