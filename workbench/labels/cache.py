"""Arrays on disk by the hash of what they were made from; never a pickle."""

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from workbench.errors import InputError
from workbench.files import make_folder, replacing

_CACHE_FORMAT = 2
"""Another one whenever texts become arrays in another way."""


def cache_name(kind: str, texts: Sequence[str], settings: dict[str, Any]) -> str:
    """A file name that changes with any text or setting."""
    digest = hashlib.sha256(repr((_CACHE_FORMAT, kind, sorted(settings.items()))).encode())
    for text in texts:
        line = text.encode("utf-8", "surrogatepass")
        digest.update(len(line).to_bytes(8, "big"))
        digest.update(line)
    return f"{kind}-{digest.hexdigest()}.npz"


def user_cache() -> Path | None:
    """The user's folder for what can be made again; None for a user without a home."""
    try:
        return user_cache_path("mechanistic-workbench")
    except RuntimeError:
        return None


def cached(
    name: str,
    cache_dir: Path | None,
    keys: Sequence[str],
    make: Callable[[], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """The arrays `keys` of a stored file, or those that `make` gives, which are then stored."""
    cache_dir = cache_dir or user_cache()
    if cache_dir is None:
        return make()
    path = cache_dir / name
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        made = make()  # not there, or damaged
    # A read-only home costs the time again, nothing else.
    with suppress(OSError, InputError):
        make_folder(path.parent)
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(file, allow_pickle=False, **made)
    return made
