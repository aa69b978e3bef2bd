import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save
from torch.testing import assert_close

from workbench.analysis.scores.nulls import RoleValues, RoutedValues
from workbench.analysis.scores.scores import RECORDS, EventScores
from workbench.errors import InputError
from workbench.messages import decode, encode
from workbench.runs.config import RunConfig


def again(value, *records):
    return decode(encode(value, records), records)


def same(one, other):
    """Whether values are alike in all types, not only equal."""
    if isinstance(one, list | tuple):
        alike = type(one) is type(other) and len(one) == len(other)
        return alike and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, 2**70, -0.1, 1e-300, float("inf"), float("nan")),
        *("", "Ünïcode \ud800 \n\0", [], (), {}, [None, [True]], (1, (2.0, "a"))),
        {"b": 1, "a": (2,), 3: None, (4, 5): [1.0], None: "none"},
        {"tuple": [1], "record": [0, {}]},
        [{"id": "p0", "event": 0, "half": "choose", "focus": 0.1, "counts_far": True}],
    ],
)
def test_plain_values_come_back_with_their_types_and_order(value):
    assert same(again(value), value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_tensors_come_back_in_their_dtype(dtype):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    given = {(0, 1): whole, (1, 0): whole[:, 1].T, (2, 0): torch.zeros((), dtype=dtype)}
    given |= {(3, 0): torch.zeros(0, 3, dtype=dtype)}
    found = again(given)
    assert list(found) == list(given)
    for key, value in given.items():
        assert_close(found[key], value, rtol=0, atol=0)
    found[0, 1].zero_()  # its own memory, which may be written
    assert whole.sum() > 0


TABLE = pd.DataFrame(
    {
        "whole": [1, 2, 3],
        "small": np.array([1, 2, 3], "int8"),
        "number": [0.1, np.nan, -np.inf],
        "single": np.array([0.1, 2, 3], "float32"),
        "truth": [True, False, True],
        "text": ["a", None, "ü"],
        "objects": pd.Series([1, None, "x"], dtype=object),
        "tuples": pd.Series([(1, 2), [3.0], float("nan")], dtype=object),
        "maybe": pd.array([1, None, 3], dtype="Int64"),
        "ordered": pd.Categorical(["x", None, "y"], ["z", "y", "x"], ordered=True),
        "codes": pd.Categorical([7, 7, 5], [9, 7, 5]),
        "when": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
    }
)


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE[["objects"]],
        TABLE.iloc[:0],
        TABLE.iloc[::2],
        TABLE.set_index(pd.Index([7, 3, 5], name="n")),
        TABLE.set_index("text"),
        TABLE.set_index(["whole", "truth"]),
        TABLE.set_index("ordered"),
        TABLE.rename_axis(columns="kind"),
        pd.DataFrame(),
        pd.DataFrame(columns=["a", "b"]),
        pd.DataFrame([[1.0, 2.0]]),
    ],
)
def test_data_frames_come_back_with_dtypes_categories_index_and_attrs(table):
    table = table.copy()
    table.attrs = {"of": ("p0", 1), 2: None}
    [found] = again([table])
    pd.testing.assert_frame_equal(found, table, check_exact=True, check_index_type="exact")
    assert found.columns.dtype == table.columns.dtype and found.columns.name == table.columns.name
    assert same(found.attrs, table.attrs)
    for name in set(table.columns) & {"objects", "tuples"}:
        assert same(found[name].tolist(), table[name].tolist())
    assert same(again({"coarse": ([table], [])})["coarse"][1], [])


def test_settings_come_back_as_they_were():
    config = RunConfig(seed=3, positions=("span",), false_discovery_rate=0.5)
    found = again({"config": config, "asks_anew": True}, RunConfig)
    assert found == {"config": config, "asks_anew": True}
    assert same(found["config"].positions, ("span",))


def test_scores_of_an_event_come_back_as_they_were():
    role = RoleValues.of(torch.rand(2, 3, 4, dtype=torch.float64), 1, "a", "b")
    values = {"plain": torch.rand(3, 4), "role": role, "routed": RoutedValues((role, role))}
    given = EventScores(values, torch.full((3, 4), torch.nan))
    [found] = again([given], *RECORDS)
    assert type(found) is EventScores and list(found.values) == list(values)
    assert_close(found.output_norm, given.output_norm, equal_nan=True)
    assert_close(found.values["plain"], values["plain"], rtol=0, atol=0)
    for one in (found.values["role"], *found.values["routed"].parts):
        assert type(one) is RoleValues and one.options == ("a", "b")
        assert_close((one.values, one.weights), (role.values, role.weights), rtol=0, atol=0)


@dataclass
class Other:
    seed: int


class Pair(NamedTuple):
    one: int
    other: int


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((set(), "set"), (b"x", "bytes"), (range(3), "range"), (np.ones(2), "numpy.ndarray")),
        *((np.int64(1), "numpy.int64"), (torch.float32, "torch.dtype"), (print, "builtin")),
        *((Other(1), "Other"), (Pair(1, 2), "Pair"), (pd.Series([1]), "Series")),
        (pd.DataFrame({"a": [{1, 2}]}), "set"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate"),
        (pd.DataFrame({"a": [1, 2]}, index=pd.Index([1, 2], dtype=object)), "changed"),
    ],
)
def test_an_unknown_kind_is_refused_at_the_sender(value, name):
    with pytest.raises(TypeError, match=f"^processes cannot send each other .*{name}"):
        encode({"found": [(value,)]}, (RunConfig,))


def message(value):
    text = bytearray(value if isinstance(value, bytes) else json.dumps(value).encode())
    return save({"value": torch.frombuffer(text, dtype=torch.uint8)})


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no message", b"\x80\x04K\x01.", b'{"seed": 1}'),
        *(save({"weight": torch.ones(2)}), message(b"{"), message(b"\xff"), message(b"[" * 10**5)),
        *(message({"class": "os.system"}), message({"tuple": [1], "dict": []}), message({})),
        *(message({"tensor": 5}), message({"frame": [0]}), message({"tuple": None})),
        *(message({"record": [1, {"seed": 1}]}), message({"record": [0, {"other": 1}]})),
        *(message({"record": [0, []]}), message({"dict": [[[], 1]]})),
    ],
)
def test_what_is_no_message_is_refused_in_one_line(content):
    with pytest.raises(ValueError, match=r"^is no message, or only a part of one \(\w+\)$"):
        decode(content, (Other,))


def test_a_part_of_a_message_is_refused():
    whole = encode([TABLE, torch.ones(3)])
    for end in range(0, len(whole), 7):
        with pytest.raises(ValueError, match=r"^is no message, or only a part of one"):
            decode(whole[:end])


def test_a_record_is_checked_as_it_is_made():
    sent = encode(RunConfig(), (RunConfig,)).replace(b'"n_prompts": 80', b'"n_prompts": -1')
    with pytest.raises(ValueError, match=r"^is no message") as refused:
        decode(sent, (RunConfig,))
    assert not isinstance(refused.value, InputError)
