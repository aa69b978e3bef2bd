"""The event of a document that is shown as it is, in a form.

Every sentence that tells the decided label changes in a counterfactual; a sentence that is left out
takes the mark of its list's item with it. Where the document is too long for the model, the same
passages are left out of all variants, and none that changes.
"""

from collections.abc import Sequence

from workbench.errors import InputError
from workbench.prompts.forms.asking import Asker, Question
from workbench.prompts.prompt import DecisionEvent, Option, Role
from workbench.prompts.sentences import without
from workbench.prompts.shortlists.plan import Dropped, Edit, Plan
from workbench.prompts.templates import CharSpan
from workbench.prompts.text import ControlTextError, TokenizedText, common_suffix, tokenize

_SLACK = 16
"""Tokens that a variant may take beyond what its sentences take."""


class Asked:
    """Writes events in a form.

    Args:
        asker: asks in it.
        tokenizer: the model's.
    """

    def __init__(self, asker: Asker, tokenizer: object) -> None:
        self._asker, self._tokenizer = asker, tokenizer

    def event(self, plan: Plan) -> tuple[DecisionEvent, bool]:
        """The event; whether passages are left out of its document.

        Raises:
            Dropped: what stays is too long, or its variants do not align.
            InputError: names of options that are several tokens.
        """
        cut = plan.document.cut
        options = [plan.labels[label].text for label in plan.candidates]
        keep = [cut.spans[at] for at in plan.changed]
        room = max(0, *(self._more(plan, edit) for edit in plan.edits)) + _SLACK
        try:
            shown = self._asker.ask(plan.document.text, options, keep=keep, room=room)
        except ControlTextError:
            raise Dropped(
                "with the text of a control token, which the tokenizer takes for it"
            ) from None
        except InputError:
            raise Dropped(f"longer than {self._asker.max_tokens} tokens") from None
        document = shown.text[slice(*shown.document)]
        places = _moved(plan, shown, document)
        questions, ends = [], []
        for edit in plan.variants:
            text, last = _edited(document, places, edit)
            question = self._asker.ask(text, options)
            if question.text[slice(*question.document)] != text:
                raise Dropped(f"longer than {self._asker.max_tokens} tokens")
            questions.append(question)
            ends.append(question.document[0] + last)
        begin = questions[0].document[0]
        start, end = (begin + at for at in places[plan.evidence])
        is_cut = shown.shown != ((0, len(plan.document.text)),)
        return self._built(plan, questions, ends, (start, end)), is_cut

    def _more(self, plan: Plan, edit: Edit) -> int:
        """Tokens that the replaced sentences take beyond the original ones."""
        pairs = [
            (said, plan.document.cut.sentences[at]) for at, said in edit.items() if said is not None
        ]
        lengths = [
            [len(tokenize(self._tokenizer, f" {text}").tokens) for text in pair] for pair in pairs
        ]
        return sum(max(0, new - old) for new, old in lengths)

    def _built(
        self, plan: Plan, questions: Sequence[Question], ends: Sequence[int], evidence: CharSpan
    ) -> DecisionEvent:
        names = questions[0].names
        several = next(
            (n for n, t in zip(names, questions[0].option_tokens, strict=True) if len(t) != 1), None
        )
        if several is not None:
            raise InputError(
                f"option name {several!r} is several tokens to this tokenizer, and events need "
                f"names of one; take fewer options than {len(names)}, or names that are letters"
            )
        texts = [tokenize(self._tokenizer, one.text, one.quoted) for one in questions]
        for text, one in zip(texts, questions, strict=True):
            if text.tokens != one.tokens:
                raise Dropped("whose sentences do not fall on token borders")
        clean, far, near = (text.tokens for text in texts)
        after = [
            len(text.tokens) - _tokens_of(text, (0, end))[1]
            for text, end in zip(texts, ends, strict=True)
        ]
        suffix = min(common_suffix([clean, far, near]), *after)
        spans = [_tokens_of(texts[0], span) for span in questions[0].options]
        if suffix < len(clean) - spans[0][0] or len({clean, far, near}) < 3:
            raise Dropped("with counterfactuals that do not align")
        options = tuple(
            Option(plan.labels[label].id, tokens[0], _role(plan, label), span)
            for label, tokens, span in zip(
                plan.candidates, questions[0].option_tokens, spans, strict=True
            )
        )
        return DecisionEvent(
            *(plan.id, 0, clean, far, near, suffix, _tokens_of(texts[0], evidence), options),
            tokenizer=self._tokenizer,
        )


def _role(plan: Plan, label: int) -> Role:
    if label == plan.gold:
        return "gold"
    if label in plan.others:
        return "other"
    return "near" if label in plan.near else "far"


def _tokens_of(text: TokenizedText, span: CharSpan) -> tuple[int, int]:
    """The tokens that hold any character of a span but blanks."""
    start, end = span
    while start < end and text.text[start].isspace():
        start += 1
    inside = [at for at, (first, last) in enumerate(text.offsets) if first < end and last > start]
    return inside[0], inside[-1] + 1


def _moved(plan: Plan, question: Question, document: str) -> dict[int, CharSpan]:
    """Where the sentences that tell gold stand in the document as it is shown."""
    whole, moved, reached = plan.document.text, {}, 0
    for start, end in question.shown:
        place = document.index(whole[start:end], reached)
        for at in plan.changed:
            first, last = plan.document.cut.spans[at]
            if start <= first and last <= end:
                moved[at] = (first - start + place, last - start + place)
        reached = place + end - start
    if len(moved) < len(plan.changed):
        raise Dropped("whose sentences do not fall on token borders")
    return moved


def _edited(document: str, places: dict[int, CharSpan], edit: Edit) -> tuple[str, int]:
    """The document with other sentences, and where the last of them ends."""
    text, behind = document, 0
    for at in sorted(places, reverse=True):
        said = edit.get(at, document[slice(*places[at])])
        start, end = places[at] if said is not None else without(document, places[at])
        text = text[:start] + (said or "") + text[end:]
        if at == max(places):
            behind = len(text) - start - len(said or "")
    return text, len(text) - behind
