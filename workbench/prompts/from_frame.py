"""Prompts from a table of documents and a table of labels."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import check_number, check_writable
from workbench.labels.frame import ALL, frame_corpus
from workbench.models import loading
from workbench.progress import Reporter
from workbench.prompts.choices import TEMPLATES
from workbench.prompts.documents import Documents
from workbench.prompts.files import write_prompts
from workbench.prompts.forms.form import PACKAGED
from workbench.prompts.make import needed_tokenizer, trained_here
from workbench.prompts.own_template import OwnTemplate
from workbench.prompts.prompt import PromptSet
from workbench.prompts.shortlists.maker import Writer, make_shortlisted
from workbench.prompts.shortlists.sizes import sizes_within
from workbench.prompts.shortlists.writers import open_writer
from workbench.prompts.templates import Template
from workbench.prompts.text import check_fast

GENERAL = "general"
"""The form that models not trained here are asked in."""


def prompts_from_frame(
    documents: Any,
    labels: Any,
    *,
    tokenizer_or_model: Any = None,
    clusters: Mapping[Any, Any] | None = None,
    template: str | Template | Callable[..., str] = "auto",
    n_prompts: int | None = None,
    n_options: int | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    label_columns: Mapping[str, str] | None = None,
    name: str = "frame",
    out: str | Path | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> PromptSet:
    """A decision event of each document of a table, in the table's order.

    One of a document's labels is decided about, at random; its evidence is what the table says, or
    else the sentence most like the label. Near options are of its cluster, far ones of others, the
    labels that are retrieved just before and behind it. In the counterfactuals stands other
    documents' evidence for a far and a near option. Where no document has any, that option's text
    or a synonym stands for evidence that the table gives; without any, the document is left out.

    A document that gives no event is left out; `reporter` says how many, and why. It also says in
    how many the gold label is named outside of its evidence: there a counterfactual may change
    little.

    Args:
        documents: a data frame with columns `text` and `labels`, optionally `id` and `evidence`
            (or `start` and `end`); several rows of one `id` are mentions of one document. See
            `workbench.labels.frame`. In templates of numbered parts runs of spaces and line breaks
            become one space.
        labels: a mapping from label id to text, a data frame with columns `id` and `text`,
            optionally `cluster` and `synonyms`, or a `LabelSpace`.
        tokenizer_or_model: a Hugging Face tokenizer of the fast kind, a `HookedModel`, or a
            model's folder or hub id; the bundled model by default.
        clusters: label id → cluster; by default the column's, and without one learned.
        template: how a prompt reads.
            "plain": as the bundled model was trained: the note in numbered parts, one for each of
            up to three gold labels, options ` text A`, `answer:`; letters of earlier parts stand
            before the decision.
            "chat": in the model's chat form (needs a tokenizer with one): the same parts, the one
            asked about between `>>` and `<<`; "chat-single", "chat-list", "think": see
            `ChatTemplate`.
            "general", or another form by name or file: the document as it is, line breaks kept,
            options `A. text`, one question; see `workbench.prompts.forms`.
            "auto": plain for a model that was trained here, "general" for others.
            Your own, with the whole document and one gold label: a format string such as
            `"Note: {document}\\n\\n{options}\\n\\nAnswer: {answer}"`, or a function of the document
            and the options (a list of letter and text) that gives the text up to the letter, so
            that it may use `tokenizer.apply_chat_template`. Letters follow a space where the text
            before them ends in one. See `OwnTemplate`.
        n_prompts: documents to use at most, drawn at random; all by default.
        n_options: options of a prompt, 20 by default, fewer where there are not so many labels.
        seed: of every choice.
        columns: names of the documents' columns that are others, `{"text": "note"}`.
        label_columns: names of the labels' columns that are others.
        name: of the prompt set.
        out: prompt file to write.
        force: whether `out` may exist.
        reporter: standard error by default.

    Raises:
        InputError: a table that is not as it should be, a template that is unknown or refused, no
            document gives an event, an option letter that is not one token, or `out` exists.
    """
    check_number("seed", seed)
    if n_prompts is not None and (not isinstance(n_prompts, int) or n_prompts < 1):
        raise InputError(f"n_prompts is {n_prompts!r}, must be a whole number, at least 1")
    if out is not None and Path(out).exists() and not force:
        raise InputError(f"{out}: exists already; give another --out, or --force to replace it")
    if out is not None:
        check_writable(Path(out), file=True)
    tokenizer, folder, context = _source(tokenizer_or_model)
    form = _template(template, folder, tokenizer)
    corpus = frame_corpus(
        documents,
        labels,
        clusters=clusters,
        columns=columns,
        label_columns=label_columns,
        name=name,
        seed=seed,
    )
    sizes = replace(sizes_within(context), min_df=1, as_given=True, n_read=len(corpus.rows))
    source = Documents(name, corpus, ALL, sizes)
    if n_options is not None:
        source = source.sized(n_options)
    if isinstance(form, OwnTemplate):
        source = replace(source, sizes=replace(source.sizes, n_mentions=1))
    reporter = reporter or Reporter()
    writer = open_writer(form, tokenizer, task=GENERAL, max_tokens=source.sizes.max_tokens)
    prompts = _made(source, writer, tokenizer, n_prompts or len(corpus.rows), seed, reporter)
    if out is not None:
        write_prompts(prompts, out)
    return prompts


def _made(
    source: Documents, writer: Writer, tokenizer: Any, n_prompts: int, seed: int, reporter: Reporter
) -> PromptSet:
    try:
        with reporter.step("prompts"):
            prompts, made = make_shortlisted(
                source.corpus,
                source.split,
                writer,
                tokenizer,
                n_prompts=n_prompts,
                seed=seed,
                task=source.name,
                config=source.sizes,
            )
    finally:  # it may be why there are no prompts
        for line in source.corpus.left_out:
            reporter.say(f"{source.name}: {line}")
    for line in made.lines:
        reporter.say(f"{source.name}: {line}")
    return prompts


def _source(given: Any) -> tuple[Any, Path | None, int | None]:
    """Tokenizer, folder and context length of what prompts are made for, as far as known."""
    from workbench.models.hooked import HookedModel

    if isinstance(given, HookedModel):
        if given.tokenizer is None:
            raise InputError("this model has no tokenizer to make prompts with")
        return given.tokenizer, None, given.context_length
    if given is None or isinstance(given, str | Path):
        source = loading.bundled_model_path() if given is None else given
        folder = loading.model_folder(source)
        text_config: Any = loading.hf_config(folder).get_text_config()
        context = getattr(text_config, "max_position_embeddings", None)
        return needed_tokenizer(source), folder, context
    check_fast(given)
    return given, None, None


def _template(given: Any, folder: Path | None, tokenizer: Any) -> str | Template:
    if isinstance(given, Template):
        return given
    if isinstance(given, str | Path) and "{" not in str(given):
        own = "plain" if trained_here(folder) else GENERAL
        settled = own if given == "auto" else str(given)
        if settled not in (*TEMPLATES, *PACKAGED) and not Path(settled).is_file():
            raise InputError(
                f"template {settled!r} is not one of {', '.join(TEMPLATES)}, no form "
                f"({', '.join(PACKAGED)}) or file of one, and holds no {{document}}"
            )
        return settled
    if not isinstance(given, str) and not callable(given):
        raise InputError(f"template is {type(given).__name__}, must be a name, text or function")
    written: Any = given
    return OwnTemplate(written, tokenizer)
