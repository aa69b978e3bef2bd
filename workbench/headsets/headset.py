"""The head-set file: which heads carry which phase, how sure that is, and how it was found.

A `HeadSet` is a frozen record that mirrors the JSON (`schema: "workbench.headset/1"`) key by key.
It holds hashes and counts of the prompts, never their text or ids, so that it may leave the place
where the prompts must stay. Layers and heads count from 0; a number that could not be computed is
null, never NaN. Reading is strict, and refuses a file with one line that names the offending key.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from workbench.errors import InputError, json_path, shorten
from workbench.files import parse_json, read_text, write_text
from workbench.headsets.consistency import check
from workbench.headsets.records import (
    Head,
    MethodInfo,
    ModelInfo,
    PoolInfo,
    PromptsInfo,
    Record,
    TokenizerInfo,
)
from workbench.measures import margin_name
from workbench.phases import PHASES, Pool
from workbench.roles import HeadPool

SchemaVersion = Literal["workbench.headset/1"]
SCHEMA: SchemaVersion = "workbench.headset/1"
LONGEST_LIST = 200
"""Characters of a message that lists what would be right."""


class HeadSet(Record):
    """Attention heads of a model that carry coarse filtering and refinement, and the evidence."""

    schema_: SchemaVersion = Field(alias="schema")
    model: ModelInfo
    prompts: PromptsInfo
    tokenizer: TokenizerInfo
    method: MethodInfo
    heads: tuple[Head, ...]
    pools: tuple[PoolInfo, ...]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "HeadSet":
        check(self)
        return self

    def __repr__(self) -> str:
        from workbench.headsets.shown import describe

        return f"<{describe(self)}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from workbench.headsets.shown import headset_html

        return headset_html(self)

    def in_pool(self, pool: HeadPool) -> tuple[Head, ...]:
        """Heads of one pool, strongest weight first."""
        return _by_weight(head for head in self.heads if head.pool == pool)

    def of_phase(self, phase: Pool) -> tuple[Head, ...]:
        """Heads that do the work of a phase, strongest first: its pool, and the label carriers.

        A carrier does both phases; in the refine phase it counts unless its interval there holds 0.
        `pool` of every head is the phase, and the weights sum to 1 over them: shares of the margin
        that they restore in the held-out half where carriers are among them and all effects are
        known, otherwise equal shares.
        """
        own = self.in_pool(phase)
        measure: Any = margin_name(PHASES[phase].chief)
        effects = {(head.layer, head.head): head.effects.get(measure) for head in self.heads}

        def acts(head: Head) -> bool:
            known = effects[head.layer, head.head]
            return phase == "coarse" or known is None or (known.low or 0.0) > 0

        carriers = [head for head in self.in_pool("carrier") if acts(head)]
        if not carriers:
            return own
        heads = [*own, *carriers]
        sizes = []
        for head in heads:
            known = effects[head.layer, head.head]
            sizes.append(max(known.effect or 0.0, 0.0) if known else 0.0)
        if not all(sizes):
            sizes = [1.0] * len(heads)
        return _by_weight(
            head.model_copy(update={"pool": phase, "weight": size / sum(sizes)})
            for head, size in zip(heads, sizes, strict=True)
        )


def _by_weight(heads: Iterable[Head]) -> tuple[Head, ...]:
    return tuple(sorted(heads, key=lambda head: (-head.weight, head.layer, head.head)))


def parse(text: str, source: str = "head set") -> HeadSet:
    """Read a head set from JSON text; `source` opens every message.

    Raises:
        InputError: one line with source, path of the first offending key, and the reason.
    """
    try:
        parse_json(text)  # refuses what pydantic takes: a key twice, NaN
        return HeadSet.model_validate_json(text)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except ValidationError as error:
        # The version first: a file of another version breaks other rules only in consequence.
        details = error.errors(include_url=False)
        first = min(details, key=lambda item: item["loc"] != ("schema",))
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise InputError(f"{source}: {_explain(first)}{more}") from None


def _explain(detail: ErrorDetails) -> str:
    path = json_path(detail["loc"])
    reason = {"extra_forbidden": "unknown key", "missing": "key is missing"}.get(detail["type"])
    if detail["loc"] == ("schema",) and reason is None:
        reason = f"is {shorten(detail['input'])}, this workbench reads {SCHEMA!r}"
    if reason is None and detail["type"] in ("head_set", "json_invalid"):
        reason = detail["msg"]  # says where by itself
    if reason is None:
        message = detail["msg"]
        if len(message) > LONGEST_LIST:
            message = f"{message[:LONGEST_LIST].rpartition(',')[0]}, … (see the schema)"
        reason = f"{message[0].lower()}{message[1:]}, got {shorten(detail['input'])}"
    return f"{path}: {reason}" if path else " ".join(reason.split())


def load(path: str | Path) -> HeadSet:
    """Read a head-set file.

    Raises:
        InputError: the file cannot be read, is of another schema version, has an unknown key or a
            bad value, or contradicts itself; one line with file, key path and reason.
    """
    return parse(read_text(path), source=str(path))


def save(headset: HeadSet, path: str | Path) -> None:
    """Write the head set as indented JSON, whole or not at all."""
    write_text(path, headset.model_dump_json(indent=2) + "\n")


def write_schema(path: str | Path) -> None:
    """Write the JSON Schema of the format, for readers in other languages.

    It says what keys and values are allowed; what `consistency` checks (ranges against the stated
    model, duplicates, sums, membership) is beyond JSON Schema and only checked by `load`.
    """
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **HeadSet.model_json_schema(),
    }
    write_text(path, json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


def describe_prompts(
    task: str, sha256: str, choose_ids: Sequence[str], verify_ids: Sequence[str], split_seed: int
) -> dict[str, Any]:
    """The `prompts` part of the file, from the prompt ids of both halves, which it only hashes.

    The hash is over the sorted ids as a JSON list: it depends on the split, not on its order.

    Raises:
        InputError: a prompt id is in both halves, or twice in one.
    """
    ids = [*choose_ids, *verify_ids]
    if len(set(ids)) != len(ids):
        raise InputError(f"prompts of task {task!r}: halves overlap or repeat a prompt id")
    return {
        "task": task,
        "n": len(ids),
        "sha256": sha256,
        "n_choose": len(choose_ids),
        "n_verify": len(verify_ids),
        "split_seed": split_seed,
        "choose_sha256": _hash_ids(choose_ids),
        "verify_sha256": _hash_ids(verify_ids),
    }


def _hash_ids(ids: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()


def check_model(
    headset: HeadSet,
    *,
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    d_model: int,
    architecture: str,
    weights_sha256: str | None = None,
    base_sha256: str | None = None,
    adapter_sha256: str | None = None,
    quantisation: Mapping[str, int] | None = None,
) -> None:
    """Refuse a model that these heads cannot belong to.

    Weights are compared only when both sides know their hash: a fine-tuned model of the same shape
    is a fair target, and a caller who wants the very same weights passes their hash. Base, adapter
    and quantisation are compared where both sides have them.

    Raises:
        InputError: one line naming every field that differs, with both values.
    """
    given: Mapping[str, object] = {
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_model": d_model,
        "architecture": architecture,
    }
    optional: Mapping[str, object] = {
        "weights_sha256": weights_sha256,
        "base.weights_sha256": base_sha256,
        "adapter.sha256": adapter_sha256,
        "quantisation": quantisation,
    }
    theirs = {field: _at(headset.model, field) for field in (*given, *optional)}
    both = {k: v for k, v in optional.items() if v is not None and theirs[k] is not None}
    differences = [
        f"{field} is {theirs[field]} in the head set, {value} in the model"
        for field, value in {**given, **both}.items()
        if theirs[field] != value
    ]
    if differences:
        raise InputError(f"head set of {headset.model.name!r}: {'; '.join(differences)}")


def _at(record: object, path: str) -> Any:
    """The value at a dotted path; None where something on the way is None."""
    for name in path.split("."):
        record = getattr(record, name, None)
    return record
