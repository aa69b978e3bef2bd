from dataclasses import replace

import pytest
import torch

from workbench.analysis.scores.attention import (
    ROUTES,
    attention_routes,
    decision_mass,
    family_contrasts,
    note_stretches,
)

EVIDENCE, DECISION = ROUTES.index("evidence"), ROUTES.index("decision")


def test_options_after_the_evidence_ask_it():
    """Evidence at 0-1, options at 2-3 and 4-5, decision at 6; one head."""
    pattern = torch.zeros(1, 7, 7)
    pattern[0, 2, 0], pattern[0, 2, 1] = 0.5, 0.25  # first token of option 0: mass 0.75
    pattern[0, 3, 1] = 0.25  # second token: 0.25, so 0.5 on average
    pattern[0, 4, 2] = 1.0  # looks at the other option, not at the evidence
    pattern[0, 6, 4], pattern[0, 6, 5] = 0.3, 0.2
    routes = attention_routes(pattern, [(2, 4), (4, 6)], (0, 2))
    assert routes[:, 0, EVIDENCE].tolist() == pytest.approx([0.5, 0.0])
    assert routes[:, 0, DECISION].tolist() == pytest.approx([0.0, 0.5])


def test_evidence_after_the_options_asks_them():
    """Options at 0-1 and 2-3, evidence at 4-5."""
    pattern = torch.zeros(1, 7, 7)
    pattern[0, 4, 0], pattern[0, 4, 1], pattern[0, 5, 1] = 0.5, 0.25, 0.25
    pattern[0, 5, 2] = 0.2
    routes = attention_routes(pattern, [(0, 2), (2, 4)], (4, 6))
    assert routes[:, 0, EVIDENCE].tolist() == pytest.approx([0.5, 0.1])


def test_evidence_between_options_swaps_the_query_per_option():
    pattern = torch.zeros(1, 7, 7)
    pattern[0, 2, 0] = 0.4  # evidence [2, 4) looks back at option 0: 0.4 / 2
    pattern[0, 5, 3] = 0.6  # option 1 at [4, 6) looks back at the evidence: 0.6 / 2
    routes = attention_routes(pattern, [(0, 2), (4, 6)], (2, 4))
    assert routes[:, 0, EVIDENCE].tolist() == pytest.approx([0.2, 0.3])


def test_uniform_attention_has_no_contrast(make_event):
    event = make_event()
    length = len(event.clean)
    pattern = torch.full((2, length, length), 1 / length)
    routes = attention_routes(pattern, [option.span for option in event.options], event.evidence)
    weights = torch.stack([*family_contrasts(event).values()])
    contrast = torch.tensordot(weights, routes.double(), dims=1)
    torch.testing.assert_close(contrast, torch.zeros_like(contrast), atol=1e-7, rtol=0)


ROLES = ("far", "gold", "near", "other", "far", "far")


def test_contrast_is_mean_of_relevant_minus_mean_of_far(make_event):
    weights = family_contrasts(make_event(roles=ROLES))
    expected = torch.tensor([-1 / 3, 1 / 2, 1 / 2, 0, -1 / 3, -1 / 3], dtype=torch.float64)
    assert list(weights) == ["relevant", "far"]
    torch.testing.assert_close(weights["relevant"], expected)
    torch.testing.assert_close(weights["far"], -expected)


def test_each_family_is_told_from_all_others_where_families_are_known(make_event):
    event = make_event(roles=ROLES)
    named = zip(event.options, ("b", "a", "a", "c", "b", "d"), strict=True)
    event = replace(event, options=tuple(replace(one, family=name) for one, name in named))
    weights = family_contrasts(event)
    assert list(weights) == ["a", "b", "c", "d"]  # gold's first
    assert weights["a"].tolist() == pytest.approx([-1 / 3, 1 / 2, 1 / 2, 0, -1 / 3, -1 / 3])
    assert weights["b"].tolist() == pytest.approx([1 / 2, -1 / 3, -1 / 3, 0, 1 / 2, -1 / 3])
    # Were c the relevant one, its own gold would count and this event's would not.
    assert weights["c"].tolist() == pytest.approx([-1 / 4, 0, -1 / 4, 1, -1 / 4, -1 / 4])


def test_stretches_of_the_note_are_as_long_as_the_evidence_and_hold_no_option(make_event):
    """Evidence first: 9, three of evidence, 8, options. Last: 9, 8, options, evidence, three."""
    event = make_event(roles=ROLES)
    assert note_stretches(event) == [(1, 4)]
    assert note_stretches(replace(event, evidence=(2, 3))) == [(1, 2), (2, 3), (3, 4), (4, 5)]
    event = make_event(roles=ROLES, evidence_first=False)
    expected = [(at, at + 1) for at in range(14, 19)]
    assert note_stretches(replace(event, evidence=(15, 16))) == expected


def test_what_the_decision_puts_on_a_span():
    pattern = torch.zeros(1, 4, 4)
    pattern[0, 2, 0], pattern[0, 3, 1], pattern[0, 3, 2] = 1.0, 0.25, 0.5
    assert decision_mass(pattern, [(0, 1), (1, 3)])[:, 0].tolist() == [0, 0.75]
