from dataclasses import asdict

from workbench.organism.card import model_card
from workbench.organism.train import OrganismConfig


def record(seconds: int, seed: int) -> dict:
    return {
        "config": asdict(OrganismConfig(seed=seed)),
        "accuracy": {"unseen chain": {"n": 200, "exact": 0.875, "per_mention": 0.95}},
        "seconds": seconds,
        "device": "a device",
        "n_parameters": 1234567,
        "loss": [{"step": 1, "loss": 8.0}, {"step": 9, "loss": 0.25}],
    }


def test_the_card_gives_accuracy_size_and_the_command():
    card = model_card(record(20, seed=7))
    assert "| unseen chain | 200 | 0.875 | 0.950 |" in card
    assert "1,234,567 parameters" in card
    assert "loss\n8.000 → 0.250" in card
    command = next(line for line in card.splitlines() if "workbench organism" in line)
    assert "--seed 7" in command and "--steps 12000" in command and "--invented 0.0" in command
