from dataclasses import replace

import pytest

from workbench.analysis.answers import Answer
from workbench.errors import InputError
from workbench.prompts.events import make_events
from workbench.prompts.prompt import PromptSet, as_event
from workbench.prompts.shown import Shown, counterfactual, set_html, show, stretches


@pytest.fixture(scope="module")
def prompts(seen_task, setting):
    template, tokenizer = setting
    return make_events(seen_task, template, tokenizer, n_prompts=5, seed=0)


@pytest.fixture
def event(prompts):
    return prompts.events[0]


def test_stretches_are_the_text_with_the_roles_of_its_spans(event):
    found = stretches(event)
    assert "".join(stretch.text for stretch in found) == event.text()
    [evidence] = [stretch.text for stretch in found if stretch.role == "evidence"]
    assert evidence == event.pieces().of(event.evidence)
    for option in event.options:
        [own] = [stretch for stretch in found if stretch.label == option.label]
        assert (own.role, own.text) == (option.role, event.pieces().of(option.span))


def test_a_counterfactual_is_its_own_evidence(event):
    for variant in ("far", "near"):
        words = counterfactual(event, variant)
        assert words and words in event.text(variant)
        start, end = event.pieces().chars(event.evidence)
        text = event.text()
        rebuilt = text[:start] + " " * text[start:end].startswith(" ") + words + text[end:]
        assert rebuilt == event.text(variant)


def test_a_set_is_echoed_short(prompts):
    page = prompts._repr_html_()
    assert page.count("<details>") == 3 and "… and 2 more" in page and len(page) < 20_000
    assert prompts.events[0].pieces().of(prompts.events[0].evidence) in page
    assert len(repr(prompts)) < 200 and "5 events of 5 prompts, 20 options each" in repr(prompts)
    many = PromptSet("many", tuple(replace(prompts.events[0], id=f"p{at}") for at in range(60)))
    assert len(set_html(many)) < 20_000


def test_an_event_too_long_for_a_set_is_not_cut_to_nonsense(prompts, monkeypatch):
    monkeypatch.setattr("workbench.prompts.shown.MOST_HTML", 500)
    page = prompts._repr_html_()
    assert page.count("too long to be shown here") == 3 and "options:" in page


def test_no_text_in_a_line(event):
    assert len(repr(event)) < 150 and "note" not in repr(event).lower()
    bare = replace(event, tokenizer=None)
    assert repr(bare) == repr(event)
    page = bare._repr_html_()
    assert "token ids alone" in page and event.options[0].label in page
    with pytest.raises(InputError, match="token ids alone"):
        show(bare)


def table_of(event):
    import pandas as pd

    return pd.DataFrame(
        {
            "label": [option.label for option in event.options],
            "p": [0.25] * len(event.options),
            "logit": [1.0] * len(event.options),
        }
    )


def test_options_with_their_probabilities(event, monkeypatch):
    found = Answer(table_of(event), 1.0, 0.0, 1.0)
    shown = show(event, found)
    assert isinstance(shown, Shown)
    page = shown._repr_html_()
    assert page.count("0.250") == len(event.options)
    text = repr(shown)
    assert text.count("███ ") == len(event.options) and "\x1b" not in text
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)  # where rich prints HTML itself
    assert repr(shown) == text
    other = replace(event, options=event.options[:-1])
    with pytest.raises(InputError, match="the answer has other options"):
        show(other, found)


def test_a_terminal_gets_colours(event):
    from io import StringIO

    from rich.console import Console

    file = StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=200)
    console.print(show(event))
    said = file.getvalue()
    words = event.pieces().of(event.evidence).strip().split()[0]
    assert f"\x1b[1;32m {words}" in said or f"\x1b[1;32m{words}" in said


def test_a_terminal_obeys_no_text(event):
    words = event.pieces().of(event.evidence).strip()
    marked = event.edit(words, f"{words} \x1b[2J\x9b2J", occurrence=0)
    assert "\x1b" not in repr(show(marked)) and "\x9b" not in repr(show(marked))
    assert "\u241b[2J" in repr(show(marked))


def test_html_is_escaped(event):
    marked = event.edit(event.pieces().of(event.evidence).strip(), "<b>fever</b>", occurrence=0)
    assert "&lt;b&gt;fever" in marked._repr_html_() and "<b>fever" not in marked._repr_html_()


def test_what_is_no_event_is_refused(event, prompts):
    assert as_event(event) is event
    for other in ("note: a text", prompts, None):
        with pytest.raises(InputError, match=r"prompts\.events\[0\], not a (str|PromptSet|None)"):
            as_event(other)
