"""What a student's card says of its losses."""

from dataclasses import asdict, replace

import pytest
from fixtures.distillation import SMALL

from workbench.distill.arms import arm_config
from workbench.distill.config import plain
from workbench.distill.training.card import student_card


def card(name, **loss):
    config = arm_config(name, SMALL)
    config = replace(config, loss=replace(config.loss, **loss))
    source = {"name": "teacher", "weights_sha256": "0" * 64, "licence": None, "revision": None}
    return student_card(
        {
            "config": plain(asdict(config)),
            "sources": {"teacher": {**source, "hub": None, "base": None}},
            "layers": None,
            "headmap": None,
            "seconds": 1,
            "device": "cpu",
            "traces": {"kept": 1, "drawn": 1, "sha256": "0" * 64},
            "n_parameters": 1,
            "n_trained": 1,
            "loss": [],
        }
    )


def test_weights_are_those_that_terms_had():
    whole, first = card("phases", lambda_p1=0.5), card("phases", lambda_p2=0.0)
    assert "| p1_attention | 0.5 |" in whole and "| p2_loop | 1 |" in whole
    assert "| p1_attention | 1 |" in first and "p2_" not in first


@pytest.mark.parametrize("name", ["phases", "phases-gold"])
def test_labels_are_not_called_the_teacher(name):
    said = next(line for line in card(name).splitlines() if line.startswith("It was trained"))
    assert ("what the teacher computes (p1_" in said) == (name == "phases")
    assert ("what the labels say (p1_" in said) == (name == "phases-gold")
