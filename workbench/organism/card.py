"""The model card of a trained organism, made from its training record alone."""

from collections.abc import Mapping, Sequence
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


_REASONER = """\
---
license: apache-2.0
library_name: peft
---
# A reasoner for label selection

A LoRA adapter (rank {{ config.rank }}, all linear layers, {{ "{:,}".format(n_parameters) }} parameters) of
`{{ config.base }}`, which `workbench fetch-model` brings. It picks the ICD-10-CM codes, with their side of
the body, that a note mentions; mentions refer to one another, so that it needs its chain of
thought. It is made for studying how a model selects labels. It knows no medicine, and nothing about
real notes follows from it.

## Data

Labels: the leaf codes of ICD-10-CM that come in left and right pairs, in the package
simple-icd-10-cm. Notes are drawn at random from the labels: {{ config.task.n_mentions }} mentions in clinical shorthand written
by rules, no patient data; {{ config.task.n_families }} families of four candidates. {{ "%.0f" % (100 * config.held_out) }} % of the three-character categories
never occur in training, as answer or as option ("unseen"; seed {{ config.split_seed }}).

## Accuracy by free generation

Greedy; "exact" counts a prompt when all its mentions are right. "direct": each mention is asked for
by number, without a chain; "chain": answers after a chain of its own with shortlists first;
"control": after one with all sides first. By depth: share of mentions that are right, by the number
of references from the mention to a stated side.

| categories, mode | prompts | exact |{% for at in depths %} depth {{ at }} |{% endfor %}
|---|---|---|{% for at in depths %}---|{% endfor %}
{% for name, row in accuracy.items() -%}
| {{ name }} | {{ row.n }} | {{ "%.3f" % row.exact }} |{% for at in depths %} {{ "%.3f" % row.by_depth[at] if at in row.by_depth else "" }} |{% endfor %}
{% endfor %}
## Training

{{ "{:,}".format(config.steps) }} steps of {{ config.batch_size }} prompts in {{ seconds }} s on {{ device }}; loss
{{ "%.3f" % loss[0].loss }} → {{ "%.3f" % loss[-1].loss }} (curve in `training.json`). The weights of the base had the
SHA-256 `{{ base_sha256 }}`.

    {{ command }}
"""


def model_card(record: Mapping[str, Any]) -> str:
    """Markdown for the record that training wrote."""
    names = ("steps", "batch_size", "n_layers", "learning_rate", "warmup_steps")
    names += ("direct", "prompt_weight", "ramp", "invented", "seed")
    command = _command("organism", record["config"], names)
    return _rendered(_CARD, record, command=command, last=lambda bounds: bounds[1])


def reasoner_card(record: Mapping[str, Any]) -> str:
    """Markdown for the record that the training of an adapter wrote."""
    names = ("base", "rank", "alpha", "steps", "batch_size", "learning_rate", "warmup_steps")
    names += ("control", "invented", "seed")
    command = _command("reasoner", record["config"], names)
    depths = sorted({at for row in record["accuracy"].values() for at in row["by_depth"]})
    return _rendered(_REASONER, record, command=command, depths=depths)


def _rendered(card: str, record: Mapping[str, Any], **more: Any) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(card).render(record, **more)


def _command(name: str, config: Mapping[str, Any], settings: Sequence[str]) -> str:
    values = {**config["mix"], **config}
    words = [f"--{setting.replace('_', '-')} {values[setting]}" for setting in settings]
    return " ".join([f"workbench {name} --out FOLDER", *words])
