"""Files of heads: the teacher's, in a head set or made by hand, and head maps.

A map is JSON (`schema: "workbench.headmap/1"`), see `head_map.HeadMap`.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.distill.matching.head_map import HeadMap, PooledHead, check_pools, describe
from workbench.errors import InputError, explain, shorten
from workbench.files import write_text
from workbench.heads import ModelShape
from workbench.headsets.headset import SCHEMA as HEADSET_SCHEMA
from workbench.models import loading
from workbench.phases import POOLS

_Model = TypeVar("_Model", bound=BaseModel)


class _HeadFile(BaseModel):
    """The little that matching needs of a head-set file."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["workbench.headset/1"] = Field(alias="schema", default=HEADSET_SCHEMA)
    model: dict[str, Any] = {}
    heads: tuple[PooledHead, ...]


def load_heads(path: str | Path, shape: ModelShape) -> tuple[PooledHead, ...]:
    """Heads of a head-set file, also of one made by hand, for a model of this shape.

    Needed are `heads` with `layer`, `head` and `pool`, and perhaps `weight`; what `model` says of
    the shape is compared. A whole head set is read strictly by `headset.load`.

    Raises:
        InputError: the file cannot be read, lacks these, has another schema version, or is of a
            model of another shape.
    """
    given = _read(path, _HeadFile)
    for field, value in shape.model_dump().items():
        if given.model.get(field, value) != value:
            found = shorten(given.model[field])
            raise InputError(f"{path}: model.{field} is {found}, the teacher's is {value}")
    for pool in POOLS:
        weighed = {"weight" in one.model_fields_set for one in given.heads if one.pool == pool}
        if len(weighed) > 1:
            raise InputError(f"{path}: pool {pool!r} gives weights to some of its heads only")
    check_pools(given.heads, shape)
    return given.heads


def heads_for(path: str | Path, folder: Path) -> tuple[PooledHead, ...]:
    """`load_heads` for the model in a folder, whose weights are compared, too.

    Raises:
        InputError: as in `load_heads`, or the file is of a model of other weights.
    """
    heads = load_heads(path, folder_shape(folder))
    theirs = _read(path, _HeadFile).model.get("weights_sha256")
    if theirs is not None:  # else not read: it can take minutes
        check_weights(str(path), theirs, loading.files_sha256(loading.weight_files(folder)))
    return heads


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
    config = loading.read_config(folder)
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


def _read(path: str | Path, record: type[_Model]) -> _Model:
    try:
        return record.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read, {error.strerror or error}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from None
