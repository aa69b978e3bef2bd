"""The report step: one HTML page from the tables of a run."""

import time
from pathlib import Path
from typing import Any

from workbench.analysis.looks.look import region_of_tokens
from workbench.analysis.option_mass import explain_mass, mass_warning
from workbench.analysis.patching.patching import event_counts
from workbench.analysis.scores.registry import known_scores
from workbench.errors import InputError
from workbench.headsets import headset as headset_file
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path
from workbench.plots.report import write_report
from workbench.processes import Processes
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts
from workbench.prompts.prompt import VARIANTS
from workbench.runs.folder import REPORT_FILE, REPORT_WITH_TEXT_FILE, RunFolder
from workbench.runs.place import hold
from workbench.runs.prompts import PROMPTS_FILE, lost_prompts
from workbench.runs.session import HEADSET_FILE
from workbench.runs.steps import HEADSET, IN_REPORT, MAKER, Step, steps_of
from workbench.runs.summary import mass_of, why_empty

LOOKS = MAKER["looks"]


def report(
    out: str | Path,
    *,
    show_text: bool = False,
    model: HookedModel | str | Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """One HTML page from the tables of a run folder; needs no model.

    With `show_text` it is another file, which holds the decoded prompts, and `model` is needed for
    its tokenizer (the bundled one unless given). Of several processes the main one makes it.

    Raises:
        InputError: an earlier step is missing, its tables are damaged, or the model has no
            tokenizer.
    """
    if not Processes.here().is_main:
        return Path(out) / (REPORT_WITH_TEXT_FILE if show_text else REPORT_FILE)
    folder = RunFolder.open(Path(out))
    folder.require(MAKER["pools"])
    texts = _prompt_texts(folder, model) if show_text else None
    with hold(folder.path):
        return _report(RunFolder.open(folder.path), texts, reporter or Reporter())


def _report(folder: RunFolder, texts: list[dict[str, Any]] | None, reporter: Reporter) -> Path:
    path = folder.path / (REPORT_FILE if texts is None else REPORT_WITH_TEXT_FILE)
    for needed in dict.fromkeys(MAKER[name] for name in (*IN_REPORT, HEADSET)):
        folder.require(needed)
        if lost := folder.lost(needed.name):
            raise InputError(f"{folder.path}: {lost}; `workbench {needed.command}` makes it again")
    step, lost = path.stem, folder.lost(path.stem)
    if lost is not None:
        reporter.say(f"{lost}; it is written again")
    if not folder.begin(step, {}):
        reporter.say(f"{step}: finished before, skipped")
        return path
    started = time.monotonic()
    headset = headset_file.load(folder.path / HEADSET_FILE).model_dump()
    tables = {name: folder.read_table(name) for name in IN_REPORT}
    extra = [
        one for one in (LOOKS, *steps_of("paths", "evidence")) if _shown(folder, one, reporter)
    ]
    more = {name: folder.read_table(name) for one in extra for name in one.makes}
    mass = mass_of(folder, tables["baseline"])
    if not folder.was_done(LOOKS.name):
        reporter.say("no pages of single heads in the report; `workbench pool` makes their tables")
    with reporter.step(step):
        write_report(
            path,
            title=f"{folder.manifest['model']['name']} on {folder.manifest['prompts']['task']}",
            manifest={**folder.manifest, "steps": _without_files(folder.manifest["steps"])},
            headset=headset,
            counts=event_counts(tables["baseline"], headset["method"]["thresholds"]),
            mass=(explain_mass(mass), mass_warning(mass)),
            why_empty=why_empty(folder),
            prompts=texts,
            words={name: (one.title, one.unit) for name, one in known_scores().items()},
            paths=more.pop("paths", None),
            looks={name: more.pop(name) for name in LOOKS.makes if name in more},
            texts=None if texts is None else {(x["id"], x["event"]): x["words"] for x in texts},
            evidence=more,
            **tables,
        )
    folder.finish(step, time.monotonic() - started, {}, [path.name])
    return path


def _without_files(steps: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in record.items() if key not in ("files", "before")}
        for name, record in steps.items()
    }


def _shown(folder: RunFolder, step: Step, reporter: Reporter) -> bool:
    """Whether the report can show what a step found, which it need not."""
    lost = folder.lost(step.name)
    if lost is not None:
        reporter.say(f"{lost}, so the report leaves it out; `workbench {step.command}` makes it")
    return folder.is_done(step.name)


def _prompt_texts(
    folder: RunFolder, model: HookedModel | str | Path | None
) -> list[dict[str, Any]]:
    source = bundled_model_path() if model is None else model
    if isinstance(source, HookedModel):
        tokenizer, digest = source.tokenizer, source.info.weights_sha256
    else:
        model_folder = loading.model_folder(source)
        tokenizer = loading.read_tokenizer(model_folder)
        digest = loading.weights_sha256(model_folder)
    folder.check({"model": {"weights_sha256": digest}})
    if lost := lost_prompts(folder):
        raise InputError(
            f"{folder.path / PROMPTS_FILE}: {lost}; `workbench run` or `workbench score` "
            "with the arguments of this run writes it again"
        )
    if tokenizer is None:
        raise InputError(f"{folder.path}: the model has no tokenizer, so prompts have no text")
    decode: Any = tokenizer.decode
    return [
        {
            "id": event.id,
            "event": event.event,
            "words": list(zip(event.str_tokens(), region_of_tokens(event), strict=True)),
            **{name: {"text": decode(list(event.variant(name)))} for name in VARIANTS},
        }
        for event in read_prompts(folder.path / PROMPTS_FILE, tokenizer)
    ]
