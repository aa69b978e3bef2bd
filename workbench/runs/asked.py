"""What a step of a run was asked for until now, beside what it is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.errors import InputError
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.steps import Step


def config_with(config: RunConfig, settings: Mapping[str, Any], where: str) -> RunConfig:
    """Settings with those that a manifest holds; `where` opens the message where they are bad.

    Raises:
        InputError: a setting that is none, or out of its range.
    """
    try:
        return replace(config, **settings)
    except (InputError, TypeError) as error:
        raise InputError(f"{where}: {error}") from None


def asked_for(
    step: Step, config: RunConfig | None, record: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What a step was asked for until now, by its record, and with `config`; each once."""
    if not step.adds:
        return []
    asked = list((record or {}).get("asked", ()))
    if record is not None and not asked:  # of before manifests held them
        then = DEFAULTS.only(step.settings) | record["settings"]
        asked = [{name: then[name] for name in step.adds}]
    now = None if config is None else config.only(step.adds)
    return asked if now is None or now in asked else [*asked, now]


def differences(step: Step, there: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Settings that differ from those that a step was done with, other than those that add up.

    A setting that the manifest does not name had its default.
    """
    then = DEFAULTS.only(step.settings) | dict(there)
    return [
        f"{name} was {_short(then[name])}, is {_short(settings[name])} now"
        for name in step.settings
        if there and name not in step.adds and then[name] != settings[name]
    ]


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
