"""The card of an adapter, made from its record alone."""

from collections.abc import Mapping
from typing import Any

import jinja2

from workbench.prompts.forms.form import PACKAGED, Form, open_form

_CARD = """\
---
license: other
library_name: peft
---
# An adapter that ranks labels of {{ corpus }}

A LoRA adapter (rank {{ config.rank }}, all linear layers, {{ "{:,}".format(n_parameters) }} parameters, {{ megabytes }} MB) of
`{{ model }}`. Shown a document and {{ config.candidates }} retrieved labels, it says which are right. It was made on the
training split alone, and is of use for this label set and this way of asking.
FOLDER is where this card lies{% if not packaged %}; FORM, a file with the texts that `adapting.json` has under `form`{% endif %}:

    workbench predict --task TASK --model FOLDER --form {{ form.name if packaged else "FORM" }} --candidates {{ config.candidates }} --max-tokens {{ config.max_tokens }} --way {{ counts.way }} --out OUT

Whether it may be passed on depends on the licences of the model and of the documents.

## Data

{{ "{:,}".format(counts.documents) }} training documents, with the labels that are retrieved for them
(shortlist {{ shortlist[:12] }}). {{ "{:,}".format(counts.held_out) }} are held out{% if groups %}, whole groups at a time{% endif %}.
{{ "{:,}".format(counts.without_right_candidate) }} have no right label among their first {{ config.candidates }}, and are left out.
{% if config.add_gold %}Right labels that were not retrieved were put in place of the last candidates.{% else %}Right labels that were not retrieved were not added.{% endif %}
It learned from {{ "{:,}".format(counts.learned_from) }}, of {{ counts.tokens.mean }} tokens on average, {{ counts.tokens.most }} at most.

## Figures on the held-out training documents

| | {{ measures | join(" | ") }} |
|---|{% for _ in measures %}---|{% endfor %}
| as retrieved |{% for name in measures %} {{ "%.3f" % held_out.retrieved[name] }} |{% endfor %}
{% for row in held_out.by_step -%}
| {{ "the model as it is" if row.step == 0 else "after " ~ "{:,}".format(row.step) ~ " steps" }} |{% for name in measures %} {{ "%.3f" % row[name] }} |{% endfor %}
{% endfor %}
## Training

{{ "{:,}".format(config.steps) }} steps of {{ config.batch_size }} documents in {{ seconds }} s on {{ device }}{% if loss %}; loss {{ "%.3f" % loss[0].loss }} → {{ "%.3f" % loss[-1].loss }}{% endif %}.
At the decision: {% if config.golds == "each" %}mean of -log p over the right options{% else %}-log of the sum of p over the right options{% endif %},
p being of the options' names alone; and {{ config.written }} times -log p(some option) among all tokens.
All settings are in `adapting.json`.
"""


def adapter_card(record: Mapping[str, Any]) -> str:
    """The README of an adapter's folder.

    Args:
        record: as `adapt` makes it.
    """
    template = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=False, keep_trailing_newline=True
    ).from_string(_CARD)
    measures = list(record["held_out"]["retrieved"])
    return template.render(**record, measures=measures, packaged=_is_packaged(record["form"]))


def _is_packaged(form: Mapping[str, Any]) -> bool:
    """Whether its name is enough: a file of its user may have the name of another one."""
    name = form["name"]
    return name in PACKAGED and open_form(name, "") == Form(**form)
