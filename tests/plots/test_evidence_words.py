import pandas as pd

from workbench.plots import evidence_words

AREA = {"kind": "sufficiency", "readout": "focus", "cpr_low": 0.1, "cpr_high": 0.9}


def area(order: str, cpr: float, minus: float) -> dict[str, object]:
    ends = {"cpr_minus": minus, "cpr_minus_low": minus - 0.001, "cpr_minus_high": minus + 0.001}
    return {**AREA, "order": order, "cpr": cpr, **ends}


def said(*rivals: dict[str, object]) -> str:
    areas = pd.DataFrame([area("pool", 0.5, 0.0), *rivals])
    [text] = evidence_words.sentences({"areas": areas})
    return text


def test_the_best_rival_decides_who_wins() -> None:
    assert "the pool's order wins" in said(area("score", 0.3, -0.2), area("random 1", 0.2, -0.3))
    text = said(area("score", 0.3, -0.2), area("output_norm", 0.7, 0.2))
    assert "output norm wins" in text and "difference −0.20 [−0.20, −0.20]" in text


def test_a_difference_nobody_cares_about_is_a_tie_however_sure() -> None:
    rival = area("attribution", 0.5, -0.001) | {"cpr_minus_low": -0.002, "cpr_minus_high": -0.0005}
    assert "a tie" in said(rival)


def test_the_causal_order_is_no_rival_of_the_pools() -> None:
    assert "the pool's order wins" in said(area("effect", 0.9, 0.4), area("score", 0.3, -0.2))


def test_a_turning_point_that_does_not_exist_says_why() -> None:
    row = {"source": "generated", "axis": "share", "what": "confusion", "at": float("nan")}
    table = pd.DataFrame([row | {"low": 0.0, "high": 0.0, "note": "too low at the start to halve"}])
    [text] = evidence_words.sentences({"turning_points": table})
    assert "undefined (too low at the start to halve)" in text


def test_every_figure_has_its_note() -> None:
    columns = evidence_words.drawings.STABILITY
    stability = pd.DataFrame([("coarse", 3, 0, 0.9, 200)], columns=columns)
    drawn = evidence_words.cards({"stability": stability})
    assert set(drawn) == {"stability"} <= set(evidence_words.NOTES)
