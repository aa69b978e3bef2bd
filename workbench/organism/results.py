"""Tables of the results that come with the repository, by name."""

import difflib
from typing import Any

import pandas as pd

from workbench.errors import InputError
from workbench.files import reading
from workbench.headsets import headset as headset_file
from workbench.models.loading import bundled_model_path


def results(name: str) -> Any:
    """A table of `data/results`, such as "reasoner/patching", or its head set ("…/headset").

    Raises:
        InputError: there is none of this name, or this installation has no results.
    """
    folder = bundled_model_path().parent / "results"
    for suffix in (".csv", ".json"):
        path = folder / f"{name}{suffix}"
        if path.is_file() and path.resolve().is_relative_to(folder):
            if suffix == ".json":
                return headset_file.load(path)
            with reading(path):
                return pd.read_csv(path)
    known = sorted(
        str(path.relative_to(folder).with_suffix(""))
        for path in folder.rglob("*")
        if path.suffix in (".csv", ".json")
    )
    near = difflib.get_close_matches(name, known, n=3) or known[:3]
    raise InputError(f"results {name!r}: no such table; there are {', '.join(near)} and others")
