"""Prompts of a user's own tables of documents and labels."""

from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.prompts.choices import OWN_TASK
from workbench.prompts.prompt import PromptSet


def tabled_prompts(
    documents: Path,
    labels: Path | None,
    out: Path,
    model: str | None,
    force: bool,
    columns: str,
    label_columns: str,
    template_file: Path | None,
    settings: dict[str, Any],
) -> PromptSet:
    """Make the prompts of two tables; `settings` are those of prompts in a run.

    Raises:
        InputError: no labels, a task beside the tables, or what `prompts_from_frame` refuses.
    """
    import workbench as wb
    from workbench.files import read_json, read_text
    from workbench.labels.tables import read_table

    if labels is None:
        raise InputError("--from needs --labels: a table with columns id and text")
    if settings["task"] != OWN_TASK:
        raise InputError(f"--task {settings['task']} and --from {documents}: give one of them")
    if settings["split"] != "unseen":
        raise InputError(f"--split goes with --task; all documents of {documents} are taken")
    template = settings["template"]
    if template_file is not None:
        template = read_text(template_file).removesuffix("\n")
        if "{document}" not in template:
            raise InputError(f"{template_file}: the template must hold {{document}}")
    return wb.prompts_from_frame(
        read_table(documents, what="documents"),
        read_json(labels) if labels.suffix == ".json" else read_table(labels, what="labels"),
        tokenizer_or_model=model,
        template=template,
        n_prompts=settings["n_prompts"],
        n_options=settings["n_options"],
        seed=settings["seed"],
        columns=_pairs("--columns", columns),
        label_columns=_pairs("--label-columns", label_columns),
        name=documents.name.partition(".")[0],
        out=out,
        force=force,
    )


def _pairs(flag: str, text: str) -> dict[str, str]:
    """The names of a flag such as text=note,labels=codes."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and own.strip() for name, _, own in parts):
        raise InputError(f"{flag}: give pairs of ours and yours, as text=note,labels=codes")
    return {name.strip(): own.strip() for name, _, own in parts}
