import pytest
from fixtures.tiny_runs import save_reader

from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.prompts.events import make_events
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.templates import PlainTemplate
from workbench.runs.validate import validate


@pytest.fixture(scope="module")
def made(seen_task, tokenizer, tmp_path_factory):
    """A model with a tokenizer, and a prompt file of its own."""
    folder = save_reader(tokenizer, tmp_path_factory.mktemp("made") / "model", context=1200)
    prompts = make_events(seen_task, PlainTemplate(), tokenizer, n_prompts=3, seed=0)
    write_prompts(prompts, folder.parent / "p.jsonl")
    return HookedModel.load(folder), folder.parent / "p.jsonl"


def test_without_a_model_places_alone_are_checked_and_that_is_said(made):
    _, path = made
    said = validate(path)
    prompts = read_prompts(path)
    lengths = [len(event.clean) for event in prompts]
    assert f"OK, {len(prompts)} events" in said
    assert f"tokens: prompts {min(lengths)} to {max(lengths)}, evidence " in said
    assert "not checked without a tokenizer (--model): what spans hold" in said


def test_text_is_shown_where_it_is_asked_for_alone(made):
    model, path = made
    event = read_prompts(path, model=model).events[0]
    evidence = event.pieces().of(event.evidence)
    said, shown = validate(path, model=model), validate(path, model=model, show=1)
    assert "not checked" not in said and evidence not in said
    lines = shown.splitlines()
    assert shown.startswith(said) and sum(line.startswith("prompt ") for line in lines) == 1
    assert f"  evidence {list(event.evidence)}: {evidence!r}" in lines
    for option in event.options:
        (line,) = [line for line in lines if f" {option.label!r}: token {option.token} " in line]
        assert line.endswith(f"{list(option.span)}: {event.pieces().of(option.span)!r}")
    with pytest.raises(InputError, match="showing text needs a model with a tokenizer"):
        validate(path, show=1)
