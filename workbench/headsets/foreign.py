"""Heads as other tools list them, read: the inverse of `export`, and Retrieval_Head's scores.

- plain lists: `L-H` names, one a line or between commas, or a JSON list of them;
- QRHead's YAML configuration (`attn_head_set`);
- Retrieval_Head's JSON: head name → its scores, one a try; heads whose mean is at least
  `RETRIEVES` are taken;
- the JSON of an EAP-IG `Graph`: the heads that are in the graph.

None of them knows pools.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import parse_json, read_text, read_yaml
from workbench.heads import Head, as_head, head_name

RETRIEVES = 0.1
"""Mean score from which a head counts as a retrieval head: it copies in one try of ten."""
_NAME = re.compile(r"\d+-\d+")
_NODE = re.compile(r"a(\d+)\.h(\d+)")


@dataclass(frozen=True)
class ForeignHeads:
    """Heads in the order of their file, or by falling score where it has scores.

    Attributes:
        form: what the file is.
        heads: (layer, head), from 0.
        n_layers: of the model, where the file says it.
        n_heads: of a layer of the model, where the file says it.
    """

    form: str
    heads: tuple[Head, ...]
    n_layers: int | None = None
    n_heads: int | None = None


def read_foreign(path: str | Path) -> ForeignHeads | None:
    """The heads of a file of another tool; None for JSON of no form above, as our own is.

    Raises:
        InputError: it cannot be read, is of such a form but damaged, or names no head or one twice.
    """
    try:
        found = _read(path)
        if found is None:
            return None
        if not found.heads:
            raise InputError(f"{found.form} names no head")
        twice = [head for head in found.heads if found.heads.count(head) > 1]
        if twice:
            raise InputError(f"head {head_name(*twice[0])} is listed twice")
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    return found


def _read(path: str | Path) -> ForeignHeads | None:
    text = read_text(path).strip()
    if text[:1] not in ("{", "["):
        names = [name.strip() for line in text.splitlines() for name in line.split(",")]
        if all(map(_NAME.fullmatch, filter(None, names))):
            return ForeignHeads("a plain list", _heads(filter(None, names)))
        return _qrhead(read_yaml(path))
    content = parse_json(text)
    if isinstance(content, list):
        return ForeignHeads("a plain list", _heads(content))
    if "nodes" in content:
        return _eap_ig(content)
    if content and all(map(_NAME.fullmatch, content)):
        return _retrieval(content)
    return None


def _heads(names: Iterable[Any]) -> tuple[Head, ...]:
    return tuple(as_head(tuple(one) if isinstance(one, list) else one) for one in names)


def _qrhead(content: Any) -> ForeignHeads:
    listed = content.get("attn_head_set") if isinstance(content, dict) else None
    if not isinstance(listed, str):
        raise InputError(
            "is no list of heads: neither L-H names, nor YAML with attn_head_set (QRHead), nor JSON"
        )
    return ForeignHeads("QRHead's configuration", _heads(listed.split(",")))


def _retrieval(content: Mapping[str, Any]) -> ForeignHeads:
    means = {}
    for name, scores in content.items():
        given = scores if isinstance(scores, list) else [scores]
        if not given or not all(type(one) in (int, float) for one in given):
            raise InputError(f"{name}: must be a list of scores")
        means[name] = sum(given) / len(given)
    named = [
        name for name in sorted(means, key=lambda one: -means[one]) if means[name] >= RETRIEVES
    ]
    form = f"Retrieval_Head's scores, of means from {RETRIEVES:g} on,"
    return ForeignHeads(form, _heads(named))


def _eap_ig(content: Mapping[str, Any]) -> ForeignHeads:
    nodes, sizes = content["nodes"], content.get("cfg", {})
    if not isinstance(nodes, dict) or not isinstance(sizes, dict):
        raise InputError("nodes and cfg of an EAP-IG graph must be objects")
    kept: dict[Head, float] = {}
    for name, node in nodes.items():
        match = _NODE.fullmatch(name)
        if match is None:
            continue
        if not isinstance(node, dict) or not isinstance(node.get("in_graph"), bool):
            raise InputError(f"nodes.{name}.in_graph must be true or false")
        score = node.get("score")
        if node["in_graph"]:
            number = isinstance(score, int | float) and not isinstance(score, bool)
            kept[int(match[1]), int(match[2])] = float(score or 0) if number else 0.0
    heads = sorted(kept, key=lambda head: -abs(kept[head]))
    given = (sizes.get(name) for name in ("n_layers", "n_heads"))
    n_layers, n_heads = (one if type(one) is int else None for one in given)
    return ForeignHeads("an EAP-IG graph", tuple(heads), n_layers, n_heads)
