"""The model card of a trained organism, made from its training record alone."""

from collections.abc import Mapping
from typing import Any

import jinja2

_CARD = """\
---
license: apache-2.0
library_name: transformers
---
# A model organism for label selection

A Llama of {{ config.n_layers }} layers × {{ config.n_heads }} heads ({{ config.n_kv_heads }} key-value heads, width
{{ config.d_model }}, {{ "{:,}".format(n_parameters) }} parameters), trained from nothing on one task: pick the ICD-10-CM
codes that a note mentions, from {{ last(config.task.n_families) }} families of {{ last(config.task.family_size) }}
candidates each. It is made for studying how a model selects labels. It knows no medicine, and
nothing about real notes follows from it.

## Data

Labels: the leaf codes of ICD-10-CM in the package simple-icd-10-cm, with official descriptions and
inclusion terms. Notes are drawn at random from the labels: clinical shorthand written by rules, no
patient data. {{ "%.0f" % (100 * config.held_out) }} % of the three-character categories never occur in training, as answer or as option
("unseen"; seed {{ config.split_seed }}).

## Accuracy by free generation

Greedy; "exact" counts a prompt when every letter is right, at the full size of the task.

| categories, mode | prompts | exact | per mention |
|---|---|---|---|
{% for name, row in accuracy.items() -%}
| {{ name }} | {{ row.n }} | {{ "%.3f" % row.exact }} | {{ "%.3f" % row.per_mention }} |
{% endfor %}
## Training

{{ "{:,}".format(config.steps) }} steps of {{ config.batch_size }} prompts in {{ seconds }} s on {{ device }}; loss
{{ "%.3f" % loss[0].loss }} → {{ "%.3f" % loss[-1].loss }} (curve in `training.json`):

    {{ command }}
"""


def model_card(record: Mapping[str, Any]) -> str:
    """Markdown for the record that training wrote."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(_CARD).render(
        record, command=_command(record["config"]), last=lambda bounds: bounds[1]
    )


def _command(config: Mapping[str, Any]) -> str:
    values = {**config["mix"], **config}
    names = ("steps", "batch_size", "n_layers", "learning_rate", "warmup_steps")
    names += ("direct", "prompt_weight", "ramp", "invented", "seed")
    words = [f"--{name.replace('_', '-')} {values[name]}" for name in names]
    return " ".join(["workbench organism --out FOLDER", *words])
