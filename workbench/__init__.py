"""Find, prove and export the attention heads with which a language model picks labels.

The names below are loaded when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.analysis.patching.effects import causal_effects
    from workbench.analysis.patching.patching import sweep
    from workbench.analysis.patching.paths import path_effects, paths_between
    from workbench.analysis.patching.screening import screen_heads
    from workbench.analysis.readout import focus_confusion
    from workbench.analysis.scores.scores import score_heads
    from workbench.distill.evaluation.evaluate import evaluate_students
    from workbench.distill.training.run import distil
    from workbench.errors import InputError
    from workbench.headsets.export import export as export_headset
    from workbench.headsets.headset import HeadSet
    from workbench.headsets.headset import load as load_headset
    from workbench.headsets.headset import save as save_headset
    from workbench.labels.icd10cm import load_icd10cm
    from workbench.labels.mimic4 import load_mimic4
    from workbench.labels.space import LabelSpace
    from workbench.labels.xmc import load_xmc
    from workbench.models.answers import early_answers, option_log_probs
    from workbench.models.forked import forked_forward, patch_heads
    from workbench.models.hooked import HookedModel
    from workbench.models.loading import bundled_model_path
    from workbench.prompts.events import make_events
    from workbench.prompts.files import read_prompts, write_prompts
    from workbench.prompts.make import make_prompts
    from workbench.prompts.prompt import DecisionEvent, Option, PromptSet
    from workbench.runs.config import RunConfig
    from workbench.runs.evidence import evidence
    from workbench.runs.patch import patch
    from workbench.runs.paths import paths
    from workbench.runs.pipeline import run
    from workbench.runs.pool import pool
    from workbench.runs.report import report
    from workbench.runs.score import score
    from workbench.runs.session import OpenRun, open_run
    from workbench.runs.validate import validate

try:
    __version__ = version("mechanistic-workbench")
except PackageNotFoundError:  # run from a source folder that was not installed
    __version__ = "unknown"

_HOME = {
    "DecisionEvent": "prompts.prompt",
    "HeadSet": "headsets.headset",
    "HookedModel": "models.hooked",
    "InputError": "errors",
    "LabelSpace": "labels.space",
    "OpenRun": "runs.session",
    "Option": "prompts.prompt",
    "PromptSet": "prompts.prompt",
    "RunConfig": "runs.config",
    "bundled_model_path": "models.loading",
    "causal_effects": "analysis.patching.effects",
    "distil": "distill.training.run",
    "early_answers": "models.answers",
    "evaluate_students": "distill.evaluation.evaluate",
    "evidence": "runs.evidence",
    "export_headset": "headsets.export:export",
    "focus_confusion": "analysis.readout",
    "forked_forward": "models.forked",
    "load_headset": "headsets.headset:load",
    "load_icd10cm": "labels.icd10cm",
    "load_mimic4": "labels.mimic4",
    "load_xmc": "labels.xmc",
    "make_events": "prompts.events",
    "make_prompts": "prompts.make",
    "open_run": "runs.session",
    "option_log_probs": "models.answers",
    "patch": "runs.patch",
    "patch_heads": "models.forked",
    "path_effects": "analysis.patching.paths",
    "paths": "runs.paths",
    "paths_between": "analysis.patching.paths",
    "pool": "runs.pool",
    "read_prompts": "prompts.files",
    "report": "runs.report",
    "run": "runs.pipeline",
    "save_headset": "headsets.headset:save",
    "score": "runs.score",
    "score_heads": "analysis.scores.scores",
    "screen_heads": "analysis.patching.screening",
    "sweep": "analysis.patching.patching",
    "validate": "runs.validate",
    "write_prompts": "prompts.files",
}
"""Public name → module below this package, with the name there where it differs."""

__all__ = [
    "DecisionEvent",
    "HeadSet",
    "HookedModel",
    "InputError",
    "LabelSpace",
    "OpenRun",
    "Option",
    "PromptSet",
    "RunConfig",
    "bundled_model_path",
    "causal_effects",
    "distil",
    "early_answers",
    "evaluate_students",
    "evidence",
    "export_headset",
    "focus_confusion",
    "forked_forward",
    "load_headset",
    "load_icd10cm",
    "load_mimic4",
    "load_xmc",
    "make_events",
    "make_prompts",
    "open_run",
    "option_log_probs",
    "patch",
    "patch_heads",
    "path_effects",
    "paths",
    "paths_between",
    "pool",
    "read_prompts",
    "report",
    "run",
    "save_headset",
    "score",
    "score_heads",
    "screen_heads",
    "sweep",
    "validate",
    "write_prompts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _HOME[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
