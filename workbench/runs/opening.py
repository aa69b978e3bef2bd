"""How a run is opened: its folder, its model and its prompts, in one process or in several."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path, model_folder
from workbench.models.memory import memory_line
from workbench.processes import Processes, started_alone
from workbench.progress import Reporter
from workbench.prompts.choices import settled_task
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.make import settled_template
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import DEFAULTS, PROMPT_SETTINGS, RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.patch import named_heads
from workbench.runs.place import hold, is_run
from workbench.runs.prompts import (
    PROMPTS_FILE,
    described,
    grow,
    lost_prompts,
    made_prompts,
    prompts_there,
    wants_more,
)
from workbench.runs.session import OpenRun
from workbench.team import Team


def open_run(
    out: str | Path,
    *,
    model: HookedModel | str | Path | None = None,
    prompts: PromptSet | str | Path | None = None,
    config: RunConfig = DEFAULTS,
    make: bool = False,
    dtype: str = "float32",
    device: str | None = None,
    reporter: Reporter | None = None,
) -> OpenRun:
    """Start a run in a new or empty folder, or take up the one that is there.

    Args:
        out: the run folder.
        model: a loaded model, a folder or a hub id; the bundled model unless given.
        prompts: a prompt set or file; those in the folder unless given.
        config: settings of all steps.
        make: make prompts for the bundled task where a new run has none.
        dtype: of the weights, unless the model is loaded.
        device: where a model goes that is not loaded; an accelerator if there is one.
        reporter: where progress is shown; standard error unless given.

    Raises:
        InputError: the folder holds something else or another run, or an input is bad.
    """
    out, here = Path(out), Processes.here()
    reporter, device = here.reporter(reporter), here.device(device)
    if not here.is_main:
        return _join(out, model, config, dtype, device, reporter)
    if started_alone():
        reporter.say(
            "one process runs: `accelerate launch --cpu` starts no more; leave --cpu out and give "
            "--multi_gpu, which needs no GPU here"
        )
    with hold(out):
        return _open(out, model, prompts, config, make, dtype, device, reporter)


def _join(
    out: Path,
    model: HookedModel | str | Path | None,
    config: RunConfig,
    dtype: str,
    device: str | None,
    reporter: Reporter,
) -> OpenRun:
    """The run that the main process opens, in another process of the same launch.

    Raises:
        InputError: another model is here than there, or the main process does not come.
        SaidElsewhere: the main process says what is wrong.
    """
    together = Team.meet(out, reporter=reporter)
    with together.failing():
        loaded = _loaded(model, dtype, device, reporter)
        manifest = together.told(lambda: None)
        folder = RunFolder(out, manifest)
        folder.check({"model": _decisive(loaded)})
        together.wait(lambda: lost_prompts(folder) is None, PROMPTS_FILE)
        chosen = read_prompts(out / PROMPTS_FILE, model=loaded, task=manifest["prompts"]["task"])
    if loaded.tokenizer is not None:
        chosen = chosen.with_tokenizer(loaded)
    return OpenRun(loaded, chosen, config, reporter, folder=folder, together=together)


def _loaded(
    model: HookedModel | str | Path | None, dtype: str, device: str | None, reporter: Reporter
) -> HookedModel:
    if isinstance(model, HookedModel):
        return model
    source = bundled_model_path() if model is None else model
    return HookedModel.load(source, dtype=dtype, device=device, reporter=reporter)


def _decisive(model: HookedModel) -> dict[str, str]:
    """What may not differ in one run."""
    return {"weights_sha256": model.info.weights_sha256, "dtype": model.info.dtype}


def _open(
    out: Path,
    model: HookedModel | str | Path | None,
    prompts: PromptSet | str | Path | None,
    config: RunConfig,
    make: bool,
    dtype: str,
    device: str | None,
    reporter: Reporter,
) -> OpenRun:
    folder = RunFolder.open(out) if is_run(out) else None
    if folder is None and prompts is None and not make:
        raise InputError(
            f"{out}: a new run needs prompts; make some with `workbench prompts --out FILE` "
            "and give them with --prompts"
        )
    together = Team.meet(out, reporter=reporter)
    with together.failing():
        loaded = _loaded(model, dtype, device, reporter)
        opened = _opened(out, folder, loaded, model, prompts, config, make, reporter)
        together.everyone()
        together.told(lambda: opened.folder.manifest)
    return replace(opened, together=together)


def _opened(
    out: Path,
    folder: RunFolder | None,
    loaded: HookedModel,
    model: HookedModel | str | Path | None,
    prompts: PromptSet | str | Path | None,
    config: RunConfig,
    make: bool,
    reporter: Reporter,
) -> OpenRun:
    """The run on a model that is loaded, with its prompts."""
    source = bundled_model_path() if model is None else model
    if folder is not None:
        folder.check({"seed": config.seed, "model": _decisive(loaded)})
    named_heads(loaded, config)
    made_with = None
    if prompts is None and make:
        config = replace(config, **_settled(config, loaded, source, folder))
        given = config.only(PROMPT_SETTINGS)
        made_with = {name: value for name, value in given.items() if value is not None}
    if isinstance(prompts, PromptSet):
        chosen = prompts
    elif prompts is not None:
        chosen = read_prompts(prompts, model=loaded)
    elif folder is None:
        chosen = made_prompts(source, config, reporter)
    else:
        chosen = prompts_there(folder, loaded, source, reporter)
        if made_with is not None and wants_more(folder, made_with):
            chosen = made_prompts(source, config, reporter)
    if folder is None:
        about = described(chosen, (len(chosen),), made_with, config.seed)
        identity = {"seed": config.seed, "model": asdict(loaded.info), "prompts": about}
        folder, lost = RunFolder.create(out, identity), "new"
    else:
        chosen = grow(folder, chosen, made_with, loaded, source, reporter)
        lost = lost_prompts(folder)
    if lost is not None:
        write_prompts(chosen, out / PROMPTS_FILE)
    if loaded.tokenizer is not None:
        chosen = chosen.with_tokenizer(loaded)
    reporter.say(memory_line(loaded, max(len(event.longest) for event in chosen)))
    return OpenRun(loaded, chosen, config, reporter, folder=folder)


def _settled(
    config: RunConfig,
    loaded: HookedModel,
    source: HookedModel | str | Path,
    folder: RunFolder | None,
) -> dict[str, Any]:
    """The task and the template that "auto" stands for: of a run that is taken up, its own."""
    made = (folder and folder.manifest["prompts"]["made_with"]) or {}
    names = {"task": config.task, "template": config.template}
    if isinstance(source, HookedModel):
        return names
    home = model_folder(source)
    for name, asked in names.items():
        if asked == "auto" and name in made:
            names[name] = made[name]
        elif name == "task":
            names[name] = settled_task(asked, home)
        else:
            names[name] = settled_template(asked, home, loaded.tokenizer, names["task"])
    return names
