"""Options that a model does not consider are told from those that it does, and why is guessed."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from workbench.analysis.option_mass import explain_mass, likely_mistake, mass_counts, mass_warning
from workbench.analysis.patching.patching import baseline
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet

LETTERS = "ABCD"
ROLES = ("gold", "near", "far", "far")


def test_baseline_says_what_the_options_hold_of_the_whole_vocabulary(model, prompts, halves):
    table = baseline(model, prompts, halves).set_index(["id", "event", "variant"])
    for event in prompts:
        for name in ("clean", "far", "near"):
            p = model.run([event.variant(name)])[0].logits.double().softmax(-1)
            expected = float(p[[option.token for option in event.options]].sum())  # `other` too
            got = table.loc[(event.id, event.event, name), "option_mass"]
            assert got == pytest.approx(expected, abs=1e-6)


def masses(*clean):
    rows = [{"variant": "clean", "option_mass": mass} for mass in clean]
    return pd.DataFrame([*rows, {"variant": "far", "option_mass": 0.0}])


def test_a_tenth_of_the_events_below_the_floor_is_worth_a_warning():
    few = mass_counts(masses(*[0.9] * 19, 0.04))
    assert few["below"] == 1 and mass_warning(few) == ""
    assert explain_mass(few) == (
        "options hold 0.86 of the probability at clean decisions, 0.04 at the least"
    )
    many = mass_counts(masses(*[0.9] * 18, 0.04, 2e-5))
    assert mass_warning(many).startswith(
        "warning: at 2 of 20 clean decisions the options hold less than 0.05 of the probability"
    )
    assert mass_warning(many | {"mistake": "this"}).endswith("; likely: this")
    assert "(mean 2e-05)" in mass_warning(mass_counts(masses(2e-5)))
    before = mass_counts(masses(0.9).drop(columns="option_mass"))
    assert explain_mass(before) == mass_warning(before) == ""


class Writer(HookedModel):
    """A model that means to write one token after every prompt."""

    def __init__(self, tokenizer, token):
        self.tokenizer = tokenizer
        self.logits = torch.zeros(len(tokenizer)).index_fill(0, torch.tensor(token), 20.0)

    def run(self, sequences):
        return [SimpleNamespace(logits=self.logits) for _ in sequences]


@pytest.fixture
def ask(tokenizer):
    """The likely mistake when a model writes `written` and options are these letters."""

    def ask(written, letters=LETTERS, clean=(5, 6, 7), reader=tokenizer):
        tokens = [reader.encode(letter, add_special_tokens=False) for letter in letters]
        options = tuple(
            Option(letter, token[-1], role, (0, 1))
            for letter, token, role in zip(letters, tokens, ROLES, strict=True)
        )
        far, near = ((token, *clean[1:]) for token in (8, 9))
        event = DecisionEvent("p", 0, clean, far, near, 1, (0, 1), options)
        [token] = [reader.encode(written, add_special_tokens=False)[-1]]
        events = (event, replace(event, id="q"))
        return likely_mistake(Writer(reader, token), PromptSet("test", events))

    return ask


def test_a_space_too_few_or_too_many_is_seen(ask):
    spaced = [f" {letter}" for letter in LETTERS]
    assert ask(" B") == "with a space before them the same options hold 1.00: keep it in token_text"
    assert (
        ask("B", spaced) == "without the space before them the same options hold 1.00: leave it out"
    )


def test_other_mistakes_are_named(ask, chat_tokenizer):
    assert ask("\n").startswith("it wants a space or a line break first")
    assert ask(":").startswith("check the options' tokens")
    control = chat_tokenizer.convert_tokens_to_ids("<user>")
    assert ask(":", reader=chat_tokenizer).endswith("not in its form: use --template chat")
    begun = (chat_tokenizer.bos_token_id, 5, 6)
    assert ask(":", clean=begun, reader=chat_tokenizer).endswith("use --template chat")
    assert ask(":", clean=(control, 6, 7), reader=chat_tokenizer).startswith("check")


def test_without_a_tokenizer_tokens_are_to_be_checked(model, prompts):
    assert model.tokenizer is None
    assert likely_mistake(model, prompts) == "check the options' tokens and where the prompts end"
