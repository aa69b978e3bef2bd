"""Looking at one head on one event, in one line."""

from dataclasses import dataclass, fields, replace

from workbench.analysis.looks.look import Look, look
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.plots.head_page import head_page
from workbench.prompts.prompt import DecisionEvent


@dataclass(frozen=True, repr=False)
class ShownLook(Look):
    """A look that a notebook shows as a page, with the prompt's text."""

    words: tuple[str, ...] | None = None
    """Text of each token; None where there is no tokenizer."""

    def _repr_html_(self) -> str:
        return head_page(self, words=self.words)


def look_at(model: HookedModel, event: DecisionEvent, head: Head | str) -> ShownLook:
    """What one head does on one event: a page in a notebook, a few lines elsewhere.

    Where it looks from the decision, the evidence, each option and each step of a chain; how much
    attention goes between these regions; and what it writes straight onto the options' logits. One
    run of the clean prompt.

    Raises:
        InputError: a prompt that the model cannot run, or a head that it does not have.
    """
    seen = look(model, event, head)
    own = {one.name: getattr(seen, one.name) for one in fields(seen)}
    known = replace(event, tokenizer=event.tokenizer or model.tokenizer)
    return ShownLook(**own, words=tuple(known.str_tokens()) if known.tokenizer else None)
