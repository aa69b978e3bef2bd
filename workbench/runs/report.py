"""The report step: one HTML page from the tables of a run."""

import time
from pathlib import Path
from typing import Any

from workbench.analysis.patching.patching import event_counts
from workbench.analysis.scores.registry import known_scores
from workbench.errors import InputError
from workbench.files import replacing
from workbench.headsets import headset as headset_file
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path
from workbench.plots.report import write_report
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts
from workbench.prompts.prompt import VARIANTS
from workbench.runs.folder import REPORT_FILE, REPORT_WITH_TEXT_FILE, RunFolder
from workbench.runs.session import HEADSET_FILE, PROMPTS_FILE
from workbench.runs.steps import IN_REPORT, MAKER, steps_of


def report(
    out: str | Path,
    *,
    show_text: bool = False,
    model: HookedModel | str | Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """One HTML page from the tables of a run folder; needs no model.

    With `show_text` it is another file, which holds the decoded prompts, and `model` is needed for
    its tokenizer (the bundled one unless given).

    Raises:
        InputError: an earlier step is missing, or the model has no tokenizer.
    """
    folder, reporter = RunFolder.open(Path(out)), reporter or Reporter()
    path = folder.path / (REPORT_WITH_TEXT_FILE if show_text else REPORT_FILE)
    folder.require(MAKER["pools"])
    texts = _prompt_texts(folder, model) if show_text else None
    step = path.stem
    if not folder.begin(step, {}):
        reporter.say(f"{step}: finished before, skipped")
        return path
    started = time.monotonic()
    headset = headset_file.load(folder.path / HEADSET_FILE).model_dump()
    tables = {name: folder.read_table(name) for name in IN_REPORT}
    with reporter.step(step), replacing(path) as beside:
        write_report(
            beside,
            title=f"{folder.manifest['model']['name']} on {folder.manifest['prompts']['task']}",
            manifest=folder.manifest,
            headset=headset,
            counts=event_counts(tables["baseline"], headset["method"]["thresholds"]),
            prompts=texts,
            words={name: (one.title, one.unit) for name, one in known_scores().items()},
            paths=folder.read_table("paths") if folder.is_done("paths") else None,
            evidence={
                name: folder.read_table(name)
                for one in steps_of("evidence")
                for name in one.makes
                if folder.has_table(name)
            },
            **tables,
        )
    folder.finish(step, time.monotonic() - started, {})
    return path


def _prompt_texts(
    folder: RunFolder, model: HookedModel | str | Path | None
) -> list[dict[str, Any]]:
    source = bundled_model_path() if model is None else model
    if isinstance(source, HookedModel):
        tokenizer, digest = source.tokenizer, source.info.weights_sha256
    else:
        model_folder = loading.model_folder(source)
        tokenizer = loading.read_tokenizer(model_folder)
        digest = loading.files_sha256(loading.weight_files(model_folder))
    folder.check({"model": {"weights_sha256": digest}})
    if tokenizer is None:
        raise InputError(f"{folder.path}: the model has no tokenizer, so prompts have no text")
    decode: Any = tokenizer.decode
    return [
        {
            "id": event.id,
            "event": event.event,
            **{name: {"text": decode(list(event.variant(name)))} for name in VARIANTS},
        }
        for event in read_prompts(folder.path / PROMPTS_FILE)
    ]
