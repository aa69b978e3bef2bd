"""Find, prove and export the attention heads with which a language model picks labels.

The names below are loaded when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("mechanistic-workbench")
except PackageNotFoundError:  # run from a source folder that was not installed
    __version__ = "unknown"

_HOME = {
    "AdaptConfig": "predicting.adapting.config",
    "Asker": "prompts.forms.asking",
    "CopiedLayers": "distill.config",
    "DecisionEvent": "prompts.prompt",
    "DistillationConfig": "distill.config",
    "FoundHeads": "runs.pipeline",
    "FreeLabels": "analysis.label_space.cases",
    "HeadSet": "headsets.headset",
    "HookedModel": "models.hooked",
    "InputError": "errors",
    "LabelRetriever": "labels.retrieval",
    "LabelSpace": "labels.space",
    "LoraConfig": "distill.config",
    "MECHANISTIC": "distill.arms",
    "OpenRun": "runs.session",
    "Option": "prompts.prompt",
    "PredictionConfig": "predicting.config",
    "PromptSet": "prompts.prompt",
    "RunConfig": "runs.config",
    "adapt": "predicting.adapting.adapt",
    "answer": "analysis.answers",
    "baseline": "analysis.patching.patching",
    "bundled_model_path": "models.loading",
    "causal_effects": "analysis.patching.effects",
    "chain_values": "analysis.chains.trajectories",
    "cluster_labels": "labels.neighbours",
    "compare_pools": "studies.placements:compare",
    "decode_labels": "analysis.label_space.free_labels",
    "distill": "distill:",
    "early_answers": "models.answers",
    "evaluate_rankings": "analysis.label_space.ranking_table",
    "evaluate_students": "distill.evaluation.evaluate",
    "evidence": "runs.pipeline",
    "explore": "explore:",
    "export_headset": "headsets.export:export",
    "false_positive_rate": "studies.selftest",
    "fetch_model": "models.pretrained",
    "find_heads": "runs.pipeline",
    "find_pools": "studies.found",
    "focus_confusion": "analysis.readout",
    "forked_forward": "models.forked",
    "free_summary": "analysis.label_space.free_labels",
    "free_trajectory": "analysis.label_space.free_labels",
    "iter_cases": "analysis.label_space.cases",
    "load_headset": "headsets.headset:load",
    "load_icd10cm": "labels.icd10cm",
    "load_mimic4": "labels.mimic4",
    "load_xmc": "labels.xmc",
    "logit_attribution": "analysis.looks.attribution",
    "look": "runs.looking:look_at",
    "make_events": "prompts.events",
    "make_prompts": "prompts.make",
    "nearest_labels": "labels.neighbours",
    "open_form": "prompts.forms.form",
    "open_run": "runs.opening",
    "open_task": "prompts.choices",
    "option_log_probs": "models.answers",
    "patch": "runs.pipeline",
    "patch_event": "analysis.patching.event_effects",
    "patch_heads": "models.forked",
    "path_effects": "analysis.patching.paths",
    "paths": "runs.pipeline",
    "paths_between": "analysis.patching.paths",
    "plant": "studies.planted",
    "plots": "plots:",
    "pool": "runs.pipeline",
    "predict": "predicting.run",
    "pretrained": "models.pretrained",
    "prompts_from_frame": "prompts.from_frame",
    "question_cases": "prompts.chain",
    "read_prompts": "prompts.files",
    "replace_z": "models.hooks",
    "report": "runs.report",
    "results": "organism.results",
    "run": "runs.pipeline",
    "save_headset": "headsets.headset:save",
    "score": "runs.pipeline",
    "score_heads": "analysis.scores.scores",
    "score_predictions": "analysis.label_space.scored",
    "screen_heads": "analysis.patching.screening",
    "show": "prompts.shown",
    "split_half": "analysis.statistics",
    "sweep": "analysis.patching.patching",
    "top_events": "runs.top_events",
    "validate": "runs.validate",
    "write_chains": "analysis.chains.generation",
    "write_prompts": "prompts.files",
}
"""Public name → module, and after the colon the name there: none if it is the module itself."""

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, colon, there = _HOME[name].partition(":")
    value: Any = import_module(f"{__name__}.{module}")
    if there or not colon:
        value = getattr(value, there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
