"""An adapter made from the training split of a label set, in a folder that can be gone on with."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from workbench.errors import InputError
from workbench.files import alone_in, claim, file_sha256, write_text
from workbench.labels.folders import open_corpus
from workbench.labels.predictions import predictions_path
from workbench.labels.retrieving.groups import read_groups
from workbench.models import adapters, loading
from workbench.models.extras import extra_package
from workbench.models.sources import is_adapter
from workbench.predicting.adapting.card import adapter_card
from workbench.predicting.adapting.config import DEFAULTS, AdaptConfig
from workbench.predicting.adapting.gathering import gather
from workbench.predicting.adapting.training import Training
from workbench.predicting.model import PlainModel, load_plain
from workbench.progress import Reporter
from workbench.prompts.choices import check_task
from workbench.prompts.forms.asking import Asker
from workbench.prompts.forms.form import Form, open_form

RECORD = adapters.ADAPTING_RECORD


def adapt(
    out: str | Path,
    task: str,
    model: str | Path,
    shortlist_file: str | Path,
    config: AdaptConfig = DEFAULTS,
    *,
    form: str | Path | Form | None = None,
    groups: str | Path | None = None,
    dtype: str | None = None,
    device: str | None = None,
    checkpoint_every: int = 100,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Make an adapter that ranks candidates of documents; goes on from its last checkpoint.

    Args:
        out: the adapter's folder.
        task: `xmc:FOLDER` or `mimic4:FOLDER`; nothing but its training split is read.
        model: name, folder or hub id of a whole model.
        shortlist_file: folder of `workbench retrieve` for the training split, or its table.
        config: settings of the training.
        form: how documents are asked about; the task's own otherwise.
        groups: file of what belongs together (`read_groups`), and is held out together.
        dtype: of the model's weights; bfloat16 on accelerators and float32 on CPUs by default.
        device: an accelerator if there is one.
        checkpoint_every: steps after which a killed training can go on.
        reporter: shows what is done.

    Returns:
        the record, as in `adapting.json`: settings, counts, and P@k and recall on the documents
        held out, by step; step 0 is the model as it is.

    Raises:
        InputError: what the model, the task, the form or the reader of the shortlist refuse, an
            adapter in place of a model, a folder that holds an adapter or was begun with other
            settings, or peft is not installed.
    """
    out, shortlist = Path(out), predictions_path(shortlist_file)
    reporter = reporter or Reporter()
    extra_package("peft", "adapting a model")
    config.check()
    if not check_task(task).takes_folder:
        raise InputError(f"task {task!r} is of no documents; give xmc:FOLDER or mimic4:FOLDER")
    if (out / RECORD).is_file():
        raise InputError(f"{out}: holds an adapter already; give another --out")
    if is_adapter(loading.model_folder(model)):
        raise InputError(f"{model} is an adapter itself; adapt the model that it is of")
    corpus = open_corpus(task)
    form = form if isinstance(form, Form) else open_form(form, task)
    grouped = read_groups(Path(groups)) if groups else None
    asked = {
        "corpus": corpus.name,
        "model": str(model),
        "form": {k: v for k, v in asdict(form).items() if k != "where"},
        "shortlist": file_sha256(shortlist),
        "groups": file_sha256(Path(groups)) if groups else None,
        "config": asdict(config),
    }
    with alone_in(out, private=corpus.text_is_private):
        dtype = dtype or ("bfloat16" if _accelerated(device) else "float32")
        plain = load_plain(model, dtype=dtype, device=device, reporter=reporter)
        longest = min(config.max_tokens, plain.context or config.max_tokens)
        asker = Asker(form, plain.tokenizer, way=config.way, max_tokens=longest)
        found = gather(corpus, shortlist, asker, config, groups=grouped, reporter=reporter)
        claim(out, out / "checkpoints" / "asked.json", asked, "an adapter")
        training = Training(plain, config, out, reporter, checkpoint_every)
        record = asked | {"dtype": dtype} | training.run(found)
        base, revision = _base(model, plain)
        adapters.save(training.model, out, base=base, revision=revision)
        record["megabytes"] = round((out / adapters.WEIGHTS_FILE).stat().st_size / 1e6, 1)
        _write(out, record)
    return record


def _accelerated(device: str | None) -> bool:
    return torch.cuda.is_available() and not str(device or "").startswith("cpu")


def _base(model: str | Path, plain: PlainModel) -> tuple[str, str | None]:
    """How the adapter names its base: a path, or a name and its revision."""
    path = Path(model).expanduser()
    return (str(path.absolute()), None) if path.exists() else (plain.name, plain.revision)


def _write(out: Path, record: Mapping[str, Any]) -> None:
    write_text(out / "README.md", adapter_card(record))
    write_text(out / RECORD, json.dumps(record, indent=1))
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
