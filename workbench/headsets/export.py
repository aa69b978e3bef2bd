"""Head sets in the forms that other tools read.

- `eap-ig`: the JSON of an EAP-IG `Graph`, with nodes `input`, `aL.hH`, `mL` and `logits`;
- `list`: one `L-H` a line;
- `qrhead`: the YAML configuration of QRHead's retriever.

None of them has room for intervals, controls or provenance: keep the head-set file beside it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import write_text
from workbench.heads import head_name
from workbench.headsets.headset import HeadSet
from workbench.headsets.records import Head
from workbench.roles import HEAD_POOLS


def to_list(headset: HeadSet, pool: str | None = None) -> list[str]:
    """Heads as `L-H`, strongest weight first; without `pool` pool by pool.

    The order lets a reader who wants only the best k heads of a pool cut the list.
    """
    return [head_name(head.layer, head.head) for head in _selected(headset, pool)]


def to_qrhead_yaml(headset: HeadSet, pool: str | None = None) -> str:
    """Configuration of three keys as QRHead ships them: head set, base class, model name.

    The base class there is the last part of the model's hub name, of an adapter its base's.

    Raises:
        InputError: no head to write, which the reader of that format cannot express.
    """
    names = to_list(headset, pool)
    if not names:
        raise InputError(f"head set of {headset.model.name!r}: pool {pool or 'any'} holds no head")
    whole = headset.model.base or headset.model
    values = {
        "attn_head_set": ",".join(names),
        "model_base_class": whole.name.rstrip("/").rsplit("/", 1)[-1],
        "model_name_or_path": headset.model.name,
    }
    # A JSON string is a YAML double-quoted scalar.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def to_eap_ig(
    headset: HeadSet, pool: str | None = None, *, parallel_attn_mlp: bool = False
) -> dict[str, Any]:
    """Node-level circuit as EAP-IG's `Graph.from_json` takes it.

    A head of the set is in the graph with its weight as node score, every other head is out of it
    with score 0. Input, MLPs and logits are in, without a score: a head set says nothing of them,
    and that format reads an unscored node as one to keep. Edges are listed where both ends are in
    the graph (the reader leaves others out); they have no score of their own and carry 0.
    `parallel_attn_mlp` says that MLPs read the stream before their layer's attention.
    """
    model = headset.model
    weight = {(head.layer, head.head): head.weight for head in _selected(headset, pool)}
    nodes: dict[str, dict[str, Any]] = {"input": {"in_graph": True}}
    for layer in range(model.n_layers):
        for head in range(model.n_heads):
            score = weight.get((layer, head))
            nodes[f"a{layer}.h{head}"] = {"in_graph": score is not None, "score": score or 0.0}
        nodes[f"m{layer}"] = {"in_graph": True}
    nodes["logits"] = {"in_graph": True}
    edges = _edges(model.n_layers, sorted(weight), parallel_attn_mlp)
    return {
        "cfg": {
            "n_layers": model.n_layers,
            "n_heads": model.n_heads,
            "parallel_attn_mlp": parallel_attn_mlp,
            "d_model": model.d_model,
        },
        "nodes": nodes,
        "edges": {edge: {"score": 0.0, "in_graph": True} for edge in edges},
    }


def _edges(n_layers: int, heads: list[tuple[int, int]], parallel_attn_mlp: bool) -> list[str]:
    """Everything that wrote to the residual stream feeds everything that reads it later."""
    written = ["input"]
    edges: list[str] = []
    for layer in range(n_layers):
        attention = [f"a{layer}.h{head}" for at, head in heads if at == layer]
        edges += [
            f"{source}->{target}<{letter}>"
            for source in written
            for target in attention
            for letter in "qkv"
        ]
        read_by_mlp = written if parallel_attn_mlp else written + attention
        edges += [f"{source}->m{layer}" for source in read_by_mlp]
        written = [*written, *attention, f"m{layer}"]
    return edges + [f"{source}->logits" for source in written]


def _selected(headset: HeadSet, pool: str | None) -> list[Head]:
    if pool is not None and pool not in HEAD_POOLS:
        raise InputError(f"pool {pool!r} is not one of {', '.join(HEAD_POOLS)}")
    return [head for name in HEAD_POOLS if pool in (None, name) for head in headset.in_pool(name)]


FORMS: dict[str, Callable[[HeadSet, str | None], str]] = {
    "eap-ig": lambda headset, pool: json.dumps(to_eap_ig(headset, pool)) + "\n",
    "list": lambda headset, pool: "".join(f"{name}\n" for name in to_list(headset, pool)),
    "qrhead": to_qrhead_yaml,
}
"""Name of each form that `export` writes, with its writer."""


def export(headset: HeadSet, path: str | Path, form: str, pool: str | None = None) -> None:
    """Write the head set, or one pool of it, to `path` in another tool's form.

    Raises:
        InputError: an unknown form or pool, or a form that cannot hold an empty set.
    """
    if form not in FORMS:
        raise InputError(f"export form {form!r} is not one of {', '.join(FORMS)}")
    write_text(path, FORMS[form](headset, pool))
