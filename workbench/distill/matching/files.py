"""Files of heads: the teacher's, in a head set or made by hand, and head maps.

A map is JSON (`schema: "workbench.headmap/1"`), see `head_map.HeadMap`.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.distill.given import foreign_heads
from workbench.distill.matching.head_map import (
    HeadMap,
    PooledHead,
    check_pools,
    describe,
    pooled_heads,
)
from workbench.errors import InputError, explain
from workbench.files import read_json, read_text, write_text
from workbench.heads import ModelShape
from workbench.headsets import headset
from workbench.headsets.foreign import ForeignHeads
from workbench.headsets.headset import SCHEMA, SchemaVersion
from workbench.headsets.records import AdapterInfo, BaseInfo, Sha256, Size
from workbench.models import loading
from workbench.phases import POOLS, Pool

_Record = TypeVar("_Record", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Head(PooledHead):
    note: str | None = None


class _Model(_Strict):
    """What a file made by hand says of its model; all of it is compared, none is needed."""

    name: str | None = None
    revision: str | None = None
    architecture: str | None = None
    n_layers: Size | None = None
    n_heads: Size | None = None
    n_kv_heads: Size | None = None
    d_model: Size | None = None
    weights_sha256: Sha256 | None = None
    base: BaseInfo | None = None
    adapter: AdapterInfo | None = None
    quantisation: dict[str, Size] | None = None


class _HeadFile(_Strict):
    """A file of heads made by hand."""

    schema_: SchemaVersion = Field(alias="schema", default=SCHEMA)
    note: str | None = None
    model: _Model = _Model()
    heads: tuple[_Head, ...]


def load_heads(path: str | Path, shape: ModelShape) -> tuple[PooledHead, ...]:
    """Heads of a head-set file, also of one made by hand, for a model of this shape.

    By hand, `heads` with `layer`, `head` and `pool` are enough; they may have a `weight`, and
    `model` may say what a head set says of its model. File and heads take a `note`.

    Raises:
        InputError: the file cannot be read, breaks either form, or is of a model of another shape.
    """
    return _read_heads(path, shape)[0]


def heads_for(path: str | Path, folder: Path, pool: Pool | None = None) -> tuple[PooledHead, ...]:
    """`load_heads` for the model in a folder, whose weights are compared, too.

    Heads that another tool listed, in a form of `headsets.foreign`, all go to `pool`, with equal
    weights.

    Raises:
        InputError: as in `load_heads`, the file is of a model of other weights, or a pool is
            missing, or given for a file that has pools.
    """
    shape = folder_shape(folder)
    listed = foreign_heads(path, pool)
    if listed is not None and pool is not None:
        return _listed(path, listed, shape, pool)
    heads, theirs = _read_heads(path, shape)
    if theirs is not None:  # else not read: it can take minutes
        check_weights(str(path), theirs, loading.weights_sha256(folder))
    return heads


def _listed(
    path: str | Path, listed: ForeignHeads, shape: ModelShape, pool: Pool
) -> tuple[PooledHead, ...]:
    for name in ("n_layers", "n_heads"):
        theirs, ours = getattr(listed, name), getattr(shape, name)
        if theirs not in (None, ours):
            raise InputError(f"{path}: cfg.{name} is {theirs}, the teacher's is {ours}")
    heads = tuple(PooledHead(layer=one, head=head, pool=pool) for one, head in listed.heads)
    try:
        check_pools(heads, shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return heads


def _read_heads(path: str | Path, shape: ModelShape) -> tuple[tuple[PooledHead, ...], str | None]:
    """The heads, and the hash of the weights that they belong to, where the file says it."""
    content = read_json(path)
    whole = isinstance(content, dict) and content.keys() & _ONLY_IN_HEAD_SETS
    given = headset.load(path) if whole else _read(path, _HeadFile)
    for field, value in shape.model_dump().items():
        found = getattr(given.model, field)
        if found not in (None, value):
            raise InputError(f"{path}: model.{field} is {found}, the teacher's is {value}")
    read = set(PooledHead.model_fields)
    heads = (
        pooled_heads(given)
        if isinstance(given, headset.HeadSet)
        else tuple(
            PooledHead(**one.model_dump(include=read, exclude_unset=True)) for one in given.heads
        )
    )
    for pool in POOLS:
        weighed = {"weight" in one.model_fields_set for one in heads if one.pool == pool}
        if len(weighed) > 1:
            raise InputError(f"{path}: pool {pool!r} gives weights to some of its heads only")
    try:
        check_pools(heads, shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return heads, given.model.weights_sha256


_ONLY_IN_HEAD_SETS = headset.HeadSet.model_fields.keys() - _HeadFile.model_fields.keys()


def check_weights(heads: str, theirs: object, teacher: str) -> None:
    """Refuse heads of a model with other weights; `theirs` is None where they do not say.

    Raises:
        InputError: the hashes differ.
    """
    if theirs not in (None, teacher):
        raise InputError(
            f"{heads}: is of weights {str(theirs)[:12]}, the teacher has {teacher[:12]}; a "
            "head set without weights_sha256 is taken for any model of its shape"
        )


def folder_shape(folder: Path) -> ModelShape:
    """Shape of the model in a folder, whose weights are not read.

    Raises:
        InputError: its configuration cannot be read or lacks a number.
    """
    config = loading.hf_config(folder).to_dict()
    try:
        n_layers, n_heads = config["num_hidden_layers"], config["num_attention_heads"]
    except KeyError as error:
        raise InputError(f"{folder}/config.json: has no {error}, needed for a head set") from None
    n_kv_heads = config.get("num_key_value_heads") or n_heads
    return ModelShape(n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads)


def save(headmap: HeadMap, path: str | Path) -> None:
    """Write the map as indented JSON, whole or not at all."""
    write_text(path, headmap.model_dump_json(indent=2) + "\n")


def load(
    path: str | Path, teacher: ModelShape | None = None, student: ModelShape | None = None
) -> HeadMap:
    """Read a map, and refuse it for models of another shape than it was made for.

    Raises:
        InputError: the file cannot be read, breaks the format, or is for other models.
    """
    headmap = _read(path, HeadMap)
    for side, shape in (("teacher", teacher), ("student", student)):
        made_for: ModelShape = getattr(headmap, side)
        if shape is not None and shape != made_for:
            raise InputError(
                f"{path}: made for a {side} of {describe(made_for)}, not of {describe(shape)}"
            )
    return headmap


def _read(path: str | Path, record: type[_Record]) -> _Record:
    read_json(path)  # refuses what pydantic takes: a key twice, NaN
    try:
        return record.model_validate_json(read_text(path))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from None
