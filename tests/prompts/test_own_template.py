import pytest

from workbench.errors import InputError
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.drawn import DrawnPrompt, Mention
from workbench.prompts.own_template import OwnTemplate

SPACE = LabelSpace("s", [Label(name, f"text of {name}", ("n",)) for name in "abc"])
FORM = "{{Note}}: {document}\n{options}\n\nAnswer: {answer}"


def drawn(text="fever, chills"):
    return DrawnPrompt("p", (Mention("a", text),), (("a", "b"), ("c",)), ("b", "a", "c"))


def lines(document, options):
    return "\n".join([f"{letter}) {text}" for letter, text in options] + [document, "It is"])


@pytest.mark.parametrize("written", [FORM, lines])
def test_spans_hold_document_and_options(tokenizer, written):
    shown = OwnTemplate(written, tokenizer).render(SPACE, drawn())
    assert shown.text[slice(*shown.mentions[0])] == "fever, chills"
    texts = [shown.text[slice(*span)] for span in shown.options]
    assert [text.strip() for text in texts] == ["text of b", "text of a", "text of c"]
    assert shown.one and shown.asking(" A") == shown.text
    start, end = shown.quoted
    assert start == min(shown.mentions[0][0], shown.options[0][0] + 1) and end <= len(shown.text)


def test_a_space_before_the_answer_is_kept_out_of_the_prompt(tokenizer):
    shown = OwnTemplate(FORM, tokenizer).render(SPACE, drawn("{braces} are text"))
    assert shown.text.startswith("{Note}: {braces}") and shown.text.endswith("\n\nAnswer:")
    assert shown.gap == " "


def fails(document, options):
    raise KeyError(document)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{document} {options}", "must end in {answer}"),
        (FORM + " please", "must end in {answer}"),
        ("{options}{answer}", "must hold {document} and {options}"),
        ("{document}{document}{options}{answer}", "each once"),
        ("{document}{options}{what}{answer}", r"cannot be rendered \(KeyError\)"),
        ("{document}{options}{answer", "must end in {answer}"),
        (fails, r"cannot be rendered \(KeyError\)"),
        (lambda document, options: None, "gives NoneType, must give a string"),
        (lambda document, options: document, "the text of each option once"),
        (lambda d, o: f"{d}{d}{o}", "the document once"),
        ("{document}<|end|>{options}{answer}", "control tokens between document and options"),
    ],
)
def test_what_is_no_template_is_refused(tokenizer, written, message):
    with pytest.raises(InputError, match=message):
        OwnTemplate(written, tokenizer)


def test_a_function_that_alters_a_document_is_refused(tokenizer):
    made = OwnTemplate(lambda d, o: lines(d.replace("fever", "x"), o), tokenizer)
    with pytest.raises(InputError, match="alters the text"):
        made.render(SPACE, drawn())
