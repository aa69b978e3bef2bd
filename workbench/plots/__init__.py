"""Figures of a run, drawn from its tables alone (plotly); `report` joins them into one page."""

from workbench.plots.figures import (
    choose_verify,
    focus_confusion,
    loss_curve,
    pool_effects,
    save_png,
    trajectory,
)
from workbench.plots.heatmaps import head_heatmap, patching_heatmaps, score_heatmaps
from workbench.plots.paths import path_sankey

__all__ = [
    "choose_verify",
    "focus_confusion",
    "head_heatmap",
    "loss_curve",
    "patching_heatmaps",
    "path_sankey",
    "pool_effects",
    "save_png",
    "score_heatmaps",
    "trajectory",
]
