"""The application that commands register with, and what all of them need.

Every failure is one line on standard error (`workbench.cli.failures`). Heavy imports wait for the
command that needs them, and so do flags that are made from settings: `--help` is quick.
"""

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import update_wrapper, wraps
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from workbench import __version__
from workbench.cli.failures import STOPPED, failure
from workbench.errors import InputError
from workbench.processes import Processes, SaidElsewhere

if TYPE_CHECKING:
    from workbench.cli.flags import Flag

DAILY = "Every day"
STEPS = "Steps of a run, one by one"
STUDENTS = "Students"
LABELS = "Large label spaces, chains of thought"
MAINTAINERS = "Tests, studies and benchmarks of this tool"
GOES_ON = "run the same command again to go on where it stopped"
NOTHING = "nothing was kept; the same command begins anew"
"""What becomes of what a command did until Ctrl-C."""
LONGEST_LINE = 1500
LINGER = 10.0
"""Seconds that the main process has to say what another process would say, and end all."""
ROOMS = (DAILY, STEPS, STUDENTS, LABELS, MAINTAINERS)
"""In the order in which `--help` shows them."""


class _Commands(TyperGroup):
    """Turns exceptions into one line and an exit code."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _ByRoom(self.commands)

    def main(self, *given: Any, **named: Any) -> Any:
        try:
            with _quiet_beside_main():
                return super().main(*given, **named)
        except Exception as error:
            if not named.get("standalone_mode", True):
                raise
            line, code = failure(error)
            if not isinstance(error, SaidElsewhere):
                complain(line)
            sys.exit(code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Click has it; a command that processes cannot share is the main one's alone."""
        name, found, rest = super().resolve_command(ctx, args)
        here = Processes.here()
        callback = getattr(found, "callback", None)  # a group of commands has none
        if here.world > 1 and callback is not None and not getattr(callback, "several", False):
            if not here.is_main:
                raise typer.Exit
            complain(f"{here.world} processes were launched, and `{name}` runs in one of them")
        return name, found, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            found = dict.get(self.commands, ctx.invoked_subcommand)
            complain(f"stopped; {getattr(getattr(found, 'callback', None), 'stopped', NOTHING)}")
            raise typer.Exit(STOPPED) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands by room."""
        rooms: dict[str, list[tuple[str, str]]] = {}
        for name, one in self.commands.items():
            room: Any = getattr(one, "rich_help_panel", None)
            rooms.setdefault(room, []).append((name, one.get_short_help_str(200)))
        for room, rows in rooms.items():
            with formatter.section(room if len(rooms) > 1 else "Commands"):
                formatter.write_dl(rows)


@contextmanager
def _quiet_beside_main() -> Iterator[None]:
    """Let the main process speak alone: what others print is lost, unless they alone fail.

    Where all fail alike, the launcher ends them once the main one has said why.
    """
    here = Processes.here()
    if here.is_main:
        yield
        return
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    except SaidElsewhere:
        raise
    except (Exception, SystemExit) as error:
        if not isinstance(error, SystemExit) or error.code not in (0, None, STOPPED):
            time.sleep(LINGER)
            sys.stderr.write(said.getvalue())
        raise


class _ByRoom(dict[str, Any]):
    """Commands in the order of `ROOMS`; one that is asked for gets the flags of its settings."""

    def __init__(self, registered: dict[str, Any]) -> None:
        rooms = {name: one.rich_help_panel for name, one in registered.items()}
        ordered = sorted(registered, key=lambda name: ROOMS.index(rooms[name]))
        super().__init__((name, registered[name]) for name in ordered)

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        build = getattr(found.callback, "build", None)
        if build is not None:
            found = self[name] = build(name)
        for parameter in getattr(found, "params", ()):
            parameter.callback = parameter.callback or _checked
        return found

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401


def _checked(context: Any, parameter: Any, value: Any) -> Any:
    if isinstance(value, int | float):
        from workbench.files import check_number

        check_number(f"--{parameter.name.replace('_', '-')}", value)
    return value


_PLAIN: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}


def commands(about: str) -> typer.Typer:
    """An application, or a group of sub-commands."""
    return typer.Typer(cls=_Commands, no_args_is_help=True, help=about, **_PLAIN)


app = commands(
    "Find, prove and export the attention heads with which a language model picks labels."
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def command(
    room: str,
    name: str | None = None,
    *,
    settings: Callable[[], dict[str, "Flag"]] | None = None,
    of: typer.Typer = app,
    stopped: str = NOTHING,
    several: bool = False,
    beats: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command. With `settings`, its parameter of that name takes all their values.

    `stopped` says after Ctrl-C what becomes of what was done; `several`, that processes of one
    launch can share it: of any other command, only the main one does something; `beats`, that it
    has parts which do not say that they move, such as imports: a line does, while they are long.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        known = name or function.__name__.replace("_", "-")
        function = _beating(function, known) if beats else function
        function.several = several  # pyright: ignore[reportFunctionMemberAccess]
        function.stopped = stopped  # pyright: ignore[reportFunctionMemberAccess]
        registered: Any = function if settings is None else _later(function, settings)
        of.command(name, rich_help_panel=room)(registered)
        return function

    return register


def _beating(function: Callable[..., None], name: str) -> Callable[..., None]:
    @wraps(function)
    def told(*given: Any, **named: Any) -> None:
        from workbench.progress import Reporter, beating

        with Reporter().between(name), beating():
            function(*given, **named)

    return told


def _later(function: Callable[..., None], settings: Callable[[], dict[str, "Flag"]]) -> Any:
    """Stands for the command, without flags, until it is asked for."""

    def stand_in() -> None: ...

    update_wrapper(stand_in, function, ("__name__", "__doc__"))
    stand_in.build = lambda name: _built(name, function, settings())  # pyright: ignore[reportFunctionMemberAccess]
    return stand_in


def _built(name: str, function: Callable[..., None], flags: dict[str, "Flag"]) -> Any:
    """The command of a function, with a flag for every setting in place of `settings`."""

    def call(**given: Any) -> None:
        values = {name: flag.value(given.pop(name)) for name, flag in flags.items()}
        function(**given, settings=values)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        if parameter.name == "ctx":  # by its type typer knows it; it is of a class beside that
            own = [own[0].replace(annotation=typer.Context)]
        parameters += (
            [flag.parameter for flag in flags.values()] if parameter.name == "settings" else own
        )
    update_wrapper(call, function, ("__doc__",))
    del call.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]  # its flags are others
    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    alone = typer.Typer(**_PLAIN)
    alone.command(name)(call)
    return typer.main.get_command(alone)


def prepare() -> None:
    """Torch on all cores unless the environment says otherwise, and no bars but our own."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)


def check_new(out: Path, force: bool | None = None) -> None:
    """Refuse to write over something; `force`, where a command has that flag, allows it.

    Raises:
        InputError: naming the file or folder.
    """
    from workbench.files import LOCK, check_writable

    left = out.is_dir() and [path.name for path in out.iterdir()] == [LOCK]  # by a killed process
    if out.exists() and not force and not left:
        way_out = "" if force is None else ", or --force to replace it"
        raise InputError(f"{out}: exists already; give another --out{way_out}")
    check_writable(out, file=bool(force))


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Hold a folder that a command makes; it goes again where nothing is put into it.

    Raises:
        InputError: it exists, or cannot be made.
    """
    from workbench.files import alone_in

    check_new(out)
    with alone_in(out):
        yield


def complain(message: str) -> None:
    """One line on standard error, as it is: brackets in a file name are no markup."""
    from rich.console import Console
    from rich.text import Text

    line = " ".join(message.split())
    if len(line) > LONGEST_LINE:
        line = f"{line[:LONGEST_LINE]} …"
    Console(stderr=True).print(Text(line), soft_wrap=True)
