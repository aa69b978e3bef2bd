"""What a run's manifest must hold, and the versions that it records."""

from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import InputError, explain
from workbench.files import read_json

SCHEMA = "workbench.run/1"
MANIFEST = "manifest.json"
PACKAGES = {
    "workbench": "mechanistic-workbench",
    "transformer_lens": "transformer-lens",
    "transformers": "transformers",
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
}


class _Read(BaseModel):
    """Part of a manifest as it must be; what else it holds is only shown."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Record(_Read):
    status: Literal["running", "done", "outdated"]
    settings: dict[str, Any]
    files: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    asked: list[dict[str, Any]] = []


class _Prompts(_Read):
    task: str
    sha256: str
    made_with: dict[str, Any] | None = None
    batches: list[int] = []


class _Model(_Read):
    name: str


class _Manifest(_Read):
    prompts: _Prompts
    model: _Model | None = None
    steps: dict[str, _Record]


def read_manifest(file: Path) -> dict[str, Any]:
    """A manifest with everything that a run is taken up by.

    Raises:
        InputError: it cannot be read, is no manifest of a run, or is damaged; says where.
    """
    manifest = read_json(file)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise InputError(f"{file}: is not the manifest of a run ({SCHEMA!r})")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        raise InputError(f"{file}: is damaged, {explain(error)}; give another --out") from None
    steps = manifest["steps"]
    paired = steps["sets"]["settings"].get("n_paired") if "sets" in steps else 0
    if paired is not None:  # pools of before their manifest said so are made from these sets
        for name in {"passing", "pool"} & set(steps):
            steps[name]["settings"].setdefault("n_paired", paired)
    return manifest


def versions(names: Collection[str] = tuple(PACKAGES)) -> dict[str, str]:
    """Installed versions of the packages whose numerics or defaults decide a result."""
    return {name: _version(PACKAGES[name]) for name in names}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def differences_in_words(
    old: Mapping[str, Any], new: Mapping[str, Any], verb: str = ""
) -> list[str]:
    """Entries of `new` that differ from `old`, as "seed is 0 there and 1 now"."""
    return [
        f"{name}{verb} {_short(before)} there and {_short(now)} now"
        for name, before, now in _differences(old, new)
    ]


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Entries of `new` that differ from `old`, as (dotted name, old, new)."""
    for name, value in new.items():
        before = old.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from _differences(before, value, f"{prefix}{name}.")
        elif before != value:
            yield f"{prefix}{name}", before, value


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return f"{value[:12]}…"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
