"""What the explorer is opened on: a run with its tables, or a model with prompts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.explore.state import State
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.runs.config import DEFAULTS
from workbench.runs.folder import RunFolder
from workbench.runs.opening import open_run
from workbench.runs.pipeline import FoundHeads
from workbench.runs.place import is_run
from workbench.runs.session import HEADSET_FILE, OpenRun
from workbench.runs.steps import HEADSET

TABLES = ("scores", "patching", "patching_events", "baseline", "paths")


def opened(
    source: OpenRun | FoundHeads | HookedModel | str | Path,
    prompts: PromptSet | DecisionEvent | str | Path | None,
    model: HookedModel | str | Path | None,
) -> State:
    """The state that an explorer starts with; arguments as in `explore`.

    Raises:
        InputError: prompts or a model are needed and were not given, or an input is bad.
    """
    if isinstance(source, str | Path):
        if is_run(Path(source)):
            source = _taken_up(Path(source), model)
        elif prompts is None:
            raise InputError(
                f"wb.explore: there is no run in {source}; if it is a model, give prompts, too"
            )
    if isinstance(source, OpenRun):
        tables = {name: source.read(name) for name in TABLES if source.folder.has_table(name)}
        pooled = (source.folder.path / HEADSET_FILE).is_file()
        headset = source.read(HEADSET) if pooled else None
        chosen = source.prompts if prompts is None else _prompts(prompts, source.model)
        return State(source.model, chosen, tables, headset)
    if isinstance(source, FoundHeads):
        loaded = _loaded(_needed(model, "model=", "the model of these heads"))
        tables = {name: getattr(source, name) for name in TABLES}
        return State(loaded, _wanted(prompts, loaded), tables, source.headset)
    if model is not None:
        raise InputError("wb.explore: model= goes with a run or found heads; source is a model")
    loaded = _loaded(source)
    return State(loaded, _wanted(prompts, loaded))


def _taken_up(folder: Path, model: HookedModel | str | Path | None) -> OpenRun:
    """The run of a folder with the seed and the number format that it was made with."""
    manifest = RunFolder.open(folder).manifest
    config = replace(DEFAULTS, seed=manifest["seed"])
    model = model or model_of_run(folder)
    return open_run(folder, model=model, config=config, dtype=_dtype(manifest))


def _dtype(manifest: Mapping[str, Any]) -> str:
    return str(manifest["model"].get("dtype", "float32"))


def model_of_run(folder: Path) -> HookedModel:
    """The model that the run's manifest names: the bundled one, or what `HookedModel.load` finds.

    Raises:
        InputError: there is none of this name; it must be given.
    """
    manifest = RunFolder.open(folder).manifest
    name = str(manifest["model"]["name"])
    bundled = bundled_model_path()
    try:
        return _loaded(bundled if name == bundled.name else name, _dtype(manifest))
    except InputError as error:
        raise InputError(f"{folder}: its model {name!r} is needed, give model= ({error})") from None


def _loaded(model: HookedModel | str | Path, dtype: str = "float32") -> HookedModel:
    if isinstance(model, HookedModel):
        return model
    return HookedModel.load(model, dtype=dtype, reporter=Reporter())


def _wanted(
    prompts: PromptSet | DecisionEvent | str | Path | None, model: HookedModel
) -> PromptSet:
    return _prompts(_needed(prompts, "prompts", "the prompts to look at"), model)


def _prompts(prompts: PromptSet | DecisionEvent | str | Path, model: HookedModel) -> PromptSet:
    if isinstance(prompts, DecisionEvent):
        return PromptSet("explored", (prompts,))
    return prompts if isinstance(prompts, PromptSet) else read_prompts(prompts, model=model)


def _needed(given: Any, name: str, words: str) -> Any:
    if given is None:
        raise InputError(f"wb.explore: give {name}, {words}")
    return given
