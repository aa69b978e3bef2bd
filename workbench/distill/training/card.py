"""The card of a student, made from its record alone; it holds no text of examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from workbench.distill.config import TERMS

_CARD = """\
---
license: {{ licence }}
library_name: {{ "peft" if saved == "adapter" else "transformers" }}
{%- if hubs %}
base_model:
{%- for hub in hubs %}
- {{ hub }}
{%- endfor %}
{%- endif %}
---
# A student of {{ teacher.name }}

{{ made }}
It was trained on the teacher's chains of thought{% if terms %} and on what the teacher computes ({{ terms | join(", ") }}){% endif %}{% if labelled %} and, in its chains, on what the labels say ({{ labelled | join(", ") }}){% endif %}.
{%- if saved == "adapter" %}
This folder holds a LoRA adapter (rank {{ lora.rank }}, alpha {{ "%g" % lora.alpha }}, all linear layers) of `{{ base }}`, not the whole model.
{%- elif saved == "merged" %}
A LoRA adapter (rank {{ lora.rank }}, alpha {{ "%g" % lora.alpha }}, all linear layers) was trained, and is merged into these weights.
{%- endif %}
{{ "{:,}".format(n_parameters) }} parameters, of which {{ "{:,}".format(n_trained) }} were trained.

    workbench run --model FOLDER --out RUN
    transformers.AutoModelForCausalLM.from_pretrained(FOLDER)

## Where it comes from

| | model | licence | SHA-256 of the weights |
|---|---|---|---|
{% for role, source in sources -%}
| {{ role }} | {{ source.name }}{% if source.revision %} at {{ source.revision }}{% endif %}{% if source.hub %} ({{ source.hub }}){% endif %} | {{ source.licence or "not known here" }} | `{{ source.weights_sha256 }}` |
{% endfor %}
{%- if new %}
Its weights were drawn at random. What the teacher's licence says of students is the user's to look up.
{% elif licence == "other" %}
Whether it may be passed on depends on the licences above.
{% endif %}
## Heads
{% if headmap %}
Matched {{ {"depth": "by depth", "attention": "by what they look at", "copied": "by the layers that were copied", "given": "as control heads"}[headmap.method] }}.

| pool | teacher | student | weight |
|---|---|---|---|
{% for pair in headmap.pairs -%}
| {{ pair.pool }} | {{ pair.teacher | join("-") }} | {{ pair.student | join("-") }} | {{ "%.3f" % pair.weight }} |
{% endfor %}
{%- else %}
No term compares heads of a pool.
{% endif %}
## Losses

| term | weight | at the last time it was logged |
|---|---|---|
{% for name, weight in weights.items() -%}
| {{ name }} | {{ "%g" % weight }} | {{ "%.4g" % last["loss_" ~ name] if "loss_" ~ name in last else "" }} |
{% endfor %}
{{ "{:,}".format(config.steps) }} steps of {{ config.batch_size * config.accumulation }} examples a process, learning rate {{ "%g" % config.learning_rate }}, seed {{ config.seed }}; {{ "{:,}".format(seconds) }} s on {{ device }}.
All settings are in `training.json`.

## Data

{{ "{:,}".format(traces.kept) }} examples, of {{ "{:,}".format(traces.drawn) }}; SHA-256 `{{ traces.sha256 }}`. No text of them is in this card.
"""


def student_card(record: Mapping[str, Any]) -> str:
    """The README of a student's folder.

    Args:
        record: as `distill` returns it.
    """
    config, sources = record["config"], record["sources"]
    listed = [
        (role if at == 0 else f"the {role}'s base", source)
        for role, first in sources.items()
        for at, source in enumerate(_chain(first))
    ]
    teacher, own = sources["teacher"], sources.get("student")
    layers, wanted = record["layers"], config["student"]
    new = own is None and layers is None
    of = _chain(own or teacher)
    known = {source["licence"] and source["licence"].lower() for source in of}
    lora = config.get("lora")
    loss = config["loss"]
    weights = {
        name: loss[name] * (loss[f"lambda_{term.phase}"] if term.phase else 1.0)
        for name, term in TERMS.items()
        if loss.get(name)
    }
    weights = {name: weight for name, weight in weights.items() if weight}
    of_phases = [name for name in weights if TERMS[name].phase]
    labelled = of_phases if loss["supervision"] == "gold" else []
    return (
        jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        .from_string(_CARD)
        .render(
            **{name: record[name] for name in ("headmap", "seconds", "device", "traces")},
            config=config,
            lora=lora,
            saved=lora and lora["saved"],
            teacher=teacher,
            sources=listed,
            new=new,
            base=(own or teacher)["name"],
            hubs=[] if new else [source["hub"] for source in of if source["hub"]],
            licence=known.pop() if len(known) == 1 and None not in known and not new else "other",
            made=_made(wanted, layers, (own or teacher)["name"]),
            weights=weights,
            terms=[name for name in weights if name != "chain" and name not in labelled],
            labelled=labelled,
            last=record["loss"][-1] if record["loss"] else {},
            n_parameters=record["n_parameters"],
            n_trained=record["n_trained"],
        )
    )


def _made(wanted: Any, layers: Sequence[int] | None, name: str) -> str:
    if layers is not None:
        return (
            f"Layers {', '.join(map(str, layers))} of `{name}`, with its embeddings and its head."
        )
    if isinstance(wanted, Mapping):
        return (
            f"A Llama of {wanted['n_layers']} layers × {wanted['n_heads']} heads (width "
            f"{wanted['d_model']}), made from nothing."
        )
    return f"All of `{name}`, trained further."


def _chain(source: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return [] if source is None else [source, *_chain(source["base"])]
