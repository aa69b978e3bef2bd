"""Flags: those that commands share, and those that are made from the fields of settings."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, get_args, get_origin, get_type_hints

import typer

Model = Annotated[
    str | None,
    typer.Option(
        help="Folder of a model or an adapter, GGUF file, name (reasoner, smollm2), or hub id.",
        show_default="the bundled model",
    ),
]
Teacher = Model
Prompts = Annotated[Path | None, typer.Option(help="Prompt file (.jsonl).")]
Out = Annotated[Path, typer.Option(help="Run folder: new, empty, or of the same run.")]
OutFile = Annotated[Path, typer.Option(help="JSON file to write.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="Device; auto spreads the model over all accelerators.",
        show_default="an accelerator if there is one",
    ),
]
OneDevice = Annotated[
    str | None, typer.Option(help="Device.", show_default="an accelerator if there is one")
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16", "float64"], typer.Option(help="Dtype of the weights.")
]
Places = Annotated[
    str, typer.Option(help="Where heads are patched: span,early,late,parting,…; see the docs.")
]
Sizes = Annotated[
    str, typer.Option(help="Heads patched together: 3,8,16.", show_default="by the model's size")
]
ModelPart = Annotated[
    str | None,
    typer.Option(help="Which of how many parts of the models, from 0: 3/8; makes no tables."),
]
Force = Annotated[bool, typer.Option(help="Replace the file if it exists.")]

NAMES = {"n_prompts": "--n"}
"""Flags that are shorter than their field."""


@dataclass(frozen=True)
class Flag:
    """A flag, and how its value becomes the setting's."""

    parameter: Parameter
    choices: tuple[str, ...] = ()
    """Of a setting that holds one or several of these; the flag takes one, or "both"."""

    def value(self, given: Any) -> Any:
        """The setting for what was given."""
        if given is None or not self.choices:
            return given
        return self.choices if given == "both" else (given,)


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """The numbers of a flag such as 3,8,16, in order.

    Raises:
        InputError: something else.
    """
    from workbench.errors import InputError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"{flag} {text}: give numbers, as 3,8,16")
    return tuple(sorted({int(part) for part in parts}))


def run_flags(*commands: str) -> dict[str, Flag]:
    """The settings that decide what these commands find, and the seed."""
    from workbench.runs.steps import settings_of

    return some_run_flags(*settings_of(*commands))


def some_run_flags(*names: str) -> dict[str, Flag]:
    """Settings of a run by name."""
    from workbench.runs.config import RunConfig

    return setting_flags(RunConfig, names)


def some_distillation_flags(*names: str) -> dict[str, Flag]:
    """Settings of a distillation by name."""
    from workbench.distill.config import DistillationConfig

    return setting_flags(DistillationConfig, names)


def setting_flags(
    settings: type, names: Collection[str] | None = None, default: str | None = None
) -> dict[str, Flag]:
    """A flag for each field of a settings class that one value can set, or for those named.

    Help texts and defaults are the fields'. With `default`, in words, what is not given is None.
    """
    hints = get_type_hints(settings, include_extras=True)
    made = {}
    for field in fields(settings):
        if names is not None and field.name not in names:
            continue
        hint, *extras = get_args(hints[field.name]) or (hints[field.name],)
        if get_origin(hints[field.name]) is not Annotated:
            hint, extras = hints[field.name], []
        if type(None) in get_args(hint):
            hint = next(one for one in get_args(hint) if one is not type(None))
        texts = [one.description for one in extras if getattr(one, "description", None)]
        shown, choices, value = hint, (), field.default
        if get_origin(hint) is tuple and get_origin(get_args(hint)[0]) is Literal:
            choices = get_args(get_args(hint)[0])
            shown, value = Literal[(*choices, "both")], "both"  # pyright: ignore
        elif get_origin(hint) is not Literal and hint not in (int, float, str, bool):
            continue
        flag = NAMES.get(field.name, f"--{field.name.replace('_', '-')}")
        option: Any = typer.Option(
            f"{flag}/--no-{flag[2:]}" if hint is bool else flag,
            help=texts[-1] if texts else None,
            show_default=default or value != "",
        )
        given = default is None and field.default is not None
        kind: Any = shown if given else Optional[shown]  # noqa: UP045
        made[field.name] = Flag(
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default=value if default is None else None,
                annotation=Annotated[kind, option],
            ),
            choices,
        )
    return made
