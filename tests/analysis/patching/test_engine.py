from dataclasses import replace

import pytest

from workbench.analysis.patching.engine import engine_use
from workbench.models.shortcuts import Shortcut


@pytest.fixture
def events(make_event):
    """Three of 22 or 23 tokens, and one of 14 or 15."""
    long = [make_event(seed=seed, prompt_id=f"p{seed}") for seed in range(3)]
    short = make_event(seed=3, prompt_id="short", roles=("gold", "near", "far"))
    return [*long, replace(short, id="short")]


def test_prompts_that_branches_are_right_for_share_a_forward(model, events):
    use = engine_use(model, events, ("decision",), 12)
    assert (use.shared, use.separate, use.slowdown) == (4, 0, 1.0)
    assert use.words == "shared forward"


def test_where_prompts_mix_both_are_said_with_the_reason(model, events, monkeypatch):
    known = Shortcut(15, 20, "logits differ by 0.3, rounding explains 0.01")
    monkeypatch.setitem(model.shortcuts, "forked forward", known)
    use = engine_use(model, events, ("decision", "span"), 12)
    long = events[:3]
    assert (use.shared, use.separate) == (1, 3)
    slow = sum(2 * 12 * len(event.clean) for event in long)
    quick = sum(2 * len(event.clean) + 12 / 2 * (1 + event.aligned_suffix) for event in long)
    assert use.slowdown == pytest.approx(slow / quick)
    assert use.words == (
        "shared forward for 1 of 4 events, else one forward per patch (logits differ by 0.3, "
        "rounding explains 0.01 for 20 tokens or more; "
        f"about {slow / quick:.2g} times the tokens, by count)"
    )
    use = engine_use(model, long, ("span",), 12)
    assert use.words.startswith("one forward per patch (logits differ by 0.3")
