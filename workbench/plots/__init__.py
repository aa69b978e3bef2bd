"""Figures of a run, drawn from its tables alone (plotly); `report` joins them into one page."""

from workbench.plots.chains import chain_effects, chain_trajectories
from workbench.plots.evidence import (
    curve_areas,
    faithfulness_curves,
    prompts_needed,
    selection_stability,
)
from workbench.plots.evidence_words import cards as evidence_cards
from workbench.plots.evidence_words import sentences as evidence_sentences
from workbench.plots.figures import (
    choose_verify,
    focus_confusion,
    loss_curve,
    pool_effects,
    trajectory,
)
from workbench.plots.free_labels import free_labels
from workbench.plots.heatmaps import head_heatmap, patching_heatmaps, pooled_heads, score_heatmaps
from workbench.plots.moments import own_moments
from workbench.plots.notebook import notebook
from workbench.plots.paths import path_graph
from workbench.plots.pictures import save_png
from workbench.plots.students import (
    student_accuracy,
    student_differences,
    student_distances,
    student_effects,
    training_curves,
)
from workbench.plots.students_page import arm_rows, term_rows
from workbench.plots.students_page import read_tables as student_tables
from workbench.plots.training import training_phases

__all__ = [
    "arm_rows",
    "chain_effects",
    "chain_trajectories",
    "choose_verify",
    "curve_areas",
    "evidence_cards",
    "evidence_sentences",
    "faithfulness_curves",
    "focus_confusion",
    "free_labels",
    "head_heatmap",
    "loss_curve",
    "notebook",
    "own_moments",
    "patching_heatmaps",
    "path_graph",
    "pool_effects",
    "pooled_heads",
    "prompts_needed",
    "save_png",
    "score_heatmaps",
    "selection_stability",
    "student_accuracy",
    "student_differences",
    "student_distances",
    "student_effects",
    "student_tables",
    "term_rows",
    "training_curves",
    "training_phases",
    "trajectory",
]
