"""What an adapter's card says to call is a call, of a model and a form that are found."""

import json
import shlex
from pathlib import Path

import pytest
from docs.test_code_blocks import command_of

from workbench.models.sources import is_adapter
from workbench.predicting.adapting.card import adapter_card
from workbench.prompts.forms.form import open_form

FOLDER = Path(__file__).parents[3] / "data" / "reranker"


@pytest.fixture
def record() -> dict:
    return json.loads((FOLDER / "adapting.json").read_text())


def flags_of(card: str) -> dict:
    """What the command line makes of the call on a card."""
    [line] = [line for line in card.splitlines() if line.startswith("    workbench ")]
    name, command, rest = command_of(shlex.split(line)[1:])
    assert name == "predict"
    return command.make_context(name, rest).params


def test_the_card_that_comes_with_the_repository_is_the_one_of_its_record(record):
    card = (FOLDER / "README.md").read_text()
    assert card == adapter_card(record)
    flags = flags_of(card)
    assert flags["model"] == "FOLDER" and "FOLDER is where this card lies" in card
    assert is_adapter(FOLDER)
    asked = {name: record["config"][name] for name in ("candidates", "max_tokens")}
    assert flags.items() >= asked.items()
    assert open_form(flags["form"], flags["task"]).name == record["form"]["name"]


@pytest.mark.parametrize("name", ["mine", "debian"])
def test_a_form_of_the_users_own_is_a_file(record, name):
    record["form"] |= {"name": name, "answer": "Mine:"}
    card = adapter_card(record)
    assert flags_of(card)["form"] == "FORM" and "FORM, a file with the texts" in card
