"""How prompts of documents are written, by the name that a user gives it."""

from typing import Any

from workbench.prompts.chat import ChatTemplate
from workbench.prompts.choices import TEMPLATES
from workbench.prompts.forms.asking import Asker, Way
from workbench.prompts.forms.form import Form, open_form
from workbench.prompts.shortlists.asked import Asked
from workbench.prompts.shortlists.maker import Writer
from workbench.prompts.shortlists.numbered import Numbered
from workbench.prompts.templates import PlainTemplate, Template


def open_writer(
    writing: str | Template | Form, tokenizer: Any, *, task: str, max_tokens: int, way: Way = "auto"
) -> Writer:
    """The writer for a model's tokenizer.

    Args:
        writing: a template, one of `choices.TEMPLATES`, a form, its name, or its file.
        tokenizer: the model's.
        task: whose form is meant.
        max_tokens: of a prompt.
        way: how a form asks.

    Raises:
        InputError: no such form, or what the form or the chat template refuses.
    """
    if isinstance(writing, str) and writing in TEMPLATES:
        named: Any = writing
        writing = PlainTemplate() if named == "plain" else ChatTemplate(tokenizer, named)
    if isinstance(writing, str):
        writing = open_form(writing, task)
    if isinstance(writing, Form):
        return Asked(Asker(writing, tokenizer, way=way, max_tokens=max_tokens), tokenizer)
    return Numbered(writing, tokenizer, max_tokens)
