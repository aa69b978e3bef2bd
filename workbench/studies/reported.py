"""What the paper reports, beside which a study puts its own numbers.

Saha Roy, Wallace and Aslam, "Characterize Then Distill: Mechanistic Reasoning in Large Output
Spaces", arXiv 2606.06840. Its full text was not at hand: the values are those typed into the
scripts that draw its figures (github my-anon-git-repo/xcube, scripts/plot_phase*.py), some marked
there as examples. They are cited as reported; nobody can recompute them. The teacher has 80 layers
of 64 heads (LLaMA3-70B).
"""

import pandas as pd

SOURCE = "arXiv 2606.06840, figures' scripts"
N_LAYERS = 80
COARSE_LEADERS = {(3, 22): 18.2, (2, 7): None, (1, 12): None, (4, 3): None}
REFINE_LEADERS = {(14, 7): 9.8, (16, 23): None, (13, 4): None, (15, 12): None}
"""Heads of the highest scores, in order, with the score where one is given."""

_MODELS = (
    "teacher, MIMIC-IV", "student, full", "student, phase 1 only", "student, phase 2 only",
    "student, SemCoT",
)  # fmt: skip
_ALONG = {
    "focus_text": {
        0: (0.46, 0.39, 0.37, 0.36, 0.33),
        0.25: (0.90, 0.77, 0.77, 0.58, 0.50),
        1: (0.95, 0.83, 0.78, 0.66, 0.60),
    },
    "confusion_text": {
        0: (0.63, 0.66, 0.62, 0.69, 0.63),
        0.5: (0.63, 0.66, 0.65, 0.69, 0.63),
        0.75: (0.18, 0.28, 0.59, 0.38, 0.59),
        1: (0.15, 0.19, 0.57, 0.30, 0.64),
    },
}
_K = (3, 8, 16, 40, 100)
_CUMULATIVE = {
    ("focus", "denoising"): (0.24, (0.48, 0.57, 0.64, 0.71, 0.76)),
    ("focus", "noising"): (0.85, (0.60, 0.53, 0.39, 0.31, 0.25)),
    ("confusion", "denoising"): (0.72, (0.48, 0.39, 0.32, 0.27, 0.24)),
    ("confusion", "noising"): (0.22, (0.51, 0.57, 0.61, 0.64, 0.66)),
}

_SIMULABILITY = {
    "phases": (0.76, 0.79),
    "phases-p1": (0.72, 0.74),
    "phases-p2": (0.73, 0.75),
    "cot": (0.69, 0.71),
    "phases-p1_attention": (0.71, 0.74),
    "phases-p1_write": (0.72, 0.75),
    "phases-p1_interaction": (0.73, 0.76),
    "phases-p2_loop": (0.72, 0.75),
    "phases-p2_write": (0.71, 0.74),
    "phases-p2_interaction": (0.73, 0.76),
}


def reported_simulability() -> dict[str, tuple[float, float]]:
    """Its leakage-adjusted simulability by arm, on MIMIC-IV and on WikiSeeAlso."""
    return dict(_SIMULABILITY)


def reported_along() -> pd.DataFrame:
    """Its Focus and Confusion along the chain; columns model, quantity, t, value."""
    rows = [
        {"model": model, "quantity": quantity, "t": float(t), "value": value}
        for quantity, places in _ALONG.items()
        for t, values in places.items()
        for model, value in zip(_MODELS, values, strict=True)
    ]
    return pd.DataFrame(rows)


def reported_cumulative() -> pd.DataFrame:
    """Its curves of patched patterns; columns readout, direction, k (0: unpatched), value."""
    rows = [
        {"readout": readout, "direction": direction, "k": k, "value": value}
        for (readout, direction), (unpatched, values) in _CUMULATIVE.items()
        for k, value in zip((0, *_K), (unpatched, *values), strict=True)
    ]
    return pd.DataFrame(rows)
