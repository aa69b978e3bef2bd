"""What processes of one launch say to one another, as bytes: values of a few kinds, never code.

A message is a safetensors file. Its array `value` is JSON, in which None, truth values, numbers,
texts and lists are themselves, and anything else is an object of one key that names its kind:

    {"tuple": [1, "a"]}             {"dict": [[key, value], …]}, in order
    {"tensor": 3}                   array 3 of the file, on the CPU
    {"frame": [4, {…}, {…}]}        array 4 is an Arrow stream; columns of any objects; attrs
    {"record": [0, {"seed": 1, …}]} a dataclass or named tuple by its fields

A message never names a class: sender and receiver both say which records may come, and a number
counts among those.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

KINDS = "None, bool, int, float, str, list, tuple, dict, tensors, data frames"


def encode(value: Any, records: Sequence[type] = ()) -> bytes:
    """A value as `decode` takes it; `records` are the dataclasses and named tuples it may hold.

    A number or text of a derived class comes back as a plain one.

    Raises:
        TypeError: the value, or one inside it, is of another kind.
    """
    from safetensors.torch import save

    arrays: list[Any] = []
    text = json.dumps(_encoded(value, records, arrays)).encode()
    return save({str(at): one for at, one in enumerate(arrays)} | {"value": _array(text)})


def decode(content: bytes, records: Sequence[type] = ()) -> Any:
    """The value of a message; `records` as its sender had them.

    Raises:
        ValueError: this is no such message, or a part of one.
    """
    from pyarrow import ArrowException
    from safetensors import SafetensorError
    from safetensors.torch import load

    wrong = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
    try:
        arrays = load(content)
        return _decoded(json.loads(_bytes(arrays["value"])), records, arrays)
    except (*wrong, SafetensorError, ArrowException) as error:
        raise ValueError(f"is no message, or only a part of one ({type(error).__name__})") from None


def _encoded(value: Any, records: Sequence[type], arrays: list[Any]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    import pandas as pd
    import torch

    def inside(one: Any) -> Any:
        return _encoded(one, records, arrays)

    def kept(array: torch.Tensor) -> int:
        arrays.append(array)
        return len(arrays) - 1

    kind = type(value)
    if kind in records:
        fields = {name: inside(getattr(value, name)) for name in _fields(kind)}
        return {"record": [list(records).index(kind), fields]}
    if kind is list:
        return [inside(one) for one in value]
    if kind is tuple:
        return {"tuple": [inside(one) for one in value]}
    if kind is dict:
        return {"dict": [[inside(key), inside(one)] for key, one in value.items()]}
    if kind is torch.Tensor:
        # A copy: safetensors refuses arrays that share memory.
        whole = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": kept(whole)}
    if kind is pd.DataFrame:
        stream, objects = _parts(value)
        return {"frame": [kept(_array(stream)), inside(objects), inside(dict(value.attrs))]}
    raise TypeError(
        f"processes cannot send each other a {kind.__module__}.{kind.__qualname__}; known are "
        + ", ".join([KINDS, *(record.__name__ for record in records)])
    )


def _decoded(value: Any, records: Sequence[type], arrays: dict[str, Any]) -> Any:
    def inside(one: Any) -> Any:
        return _decoded(one, records, arrays)

    if isinstance(value, list):
        return [inside(one) for one in value]
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tuple":
        return tuple(inside(one) for one in content)
    if kind == "dict":
        return {inside(key): inside(one) for key, one in content}
    if kind == "tensor":
        return arrays[str(content)]
    if kind == "frame":
        stream, objects, attrs = content
        return _frame(_bytes(arrays[str(stream)]), inside(objects), inside(attrs))
    if kind == "record":
        record = records[content[0]]
        if list(content[1]) != _fields(record):
            raise ValueError("other fields")
        return record(**{name: inside(one) for name, one in content[1].items()})
    raise ValueError("another kind")


def _fields(record: Any) -> list[str]:
    """What a record is made of, by name."""
    if dataclasses.is_dataclass(record):
        return [field.name for field in dataclasses.fields(record) if field.init]
    return list(record._fields)


def _parts(table: Any) -> tuple[bytes, dict[int, Any]]:
    """A data frame's columns as an Arrow stream, and those of objects: place → label, values.

    Arrow would give such columns a type.

    Raises:
        TypeError: the frame would not come back as it is.
    """
    import pyarrow as pa

    is_object = [str(dtype) == "object" for dtype in table.dtypes]
    others = table.loc[:, [not one for one in is_object]]
    others.attrs = {}
    objects = {
        at: [table.columns[at], table.iloc[:, at].tolist()]
        for at, one in enumerate(is_object)
        if one
    }
    sink = pa.BufferOutputStream()
    try:
        arrow = pa.Table.from_pandas(others)
        # Without rows there would be no batch, and categories are written with the first.
        with pa.ipc.new_stream(sink, arrow.schema) as stream:
            for batch in arrow.to_batches() or [_without_rows(arrow)]:
                stream.write_batch(batch)
        content = sink.getvalue().to_pybytes()
        back = _frame(content, objects, {})
        same = back.equals(table) and back.index.identical(table.index)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise TypeError(f"processes cannot send each other this data frame: {error}") from None
    if not (same and back.columns.dtype == table.columns.dtype):
        raise TypeError("processes cannot send each other this data frame: it would be changed")
    return content, objects


def _without_rows(arrow: Any) -> Any:
    import pyarrow as pa

    columns = [column.combine_chunks() for column in arrow.columns]
    return pa.RecordBatch.from_arrays(columns, schema=arrow.schema)


def _frame(stream: bytes, objects: dict[int, Any], attrs: dict[Any, Any]) -> Any:
    import pandas as pd
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        table = reader.read_all().to_pandas()
    for at, (label, values) in objects.items():
        table.insert(at, label, pd.Series(values, table.index, dtype=object))
    table.attrs = attrs
    return table


def _array(content: bytes) -> Any:
    import torch

    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _bytes(array: Any) -> bytes:
    return array.numpy().tobytes()
