"""The `micelio-storage` command: where each part of it is. What it says is in `_report`.

Errors are raised where they happen, and become lines and an exit code in one place: `run`.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from . import _report as report
from ._help import SETTINGS, Command, Group
from ._invocation import Invocation, StoppedError
from ._options import StorageOption
from ._pipes import ClosedPipeError, say

# The module of each command, in the order of the help. Only what is named is imported: all of them take a second.
COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("put", "get", "cat", "ls", "stat", "url"), "_objects"),
    **dict.fromkeys(("rm", "cp", "mv"), "_changes"),
    "sync": "_directories",
    "events": "_sessions",
    **dict.fromkeys(("snapshot", "workspace"), "_snapshots"),
    "serve": "serve",
    "uploads": "_uploads",
    **dict.fromkeys(("sweep", "touch", "hold", "release", "collect"), "_expiry"),
    **dict.fromkeys(("archive", "unarchive"), "_archives"),
    **dict.fromkeys(("migrate", "policy"), "_operations"),
    "doctor": "_doctor",
    **dict.fromkeys(("verify", "soak"), "_integrity"),
    **dict.fromkeys(("check", "demo"), "_trials"),
}
OTHERWISE_NAMED = {"snapshot": "snapshots", "workspace": "workspaces", "verify": "verify_all", "soak": "soak_it"}


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Whatever goes wrong is said here, on standard error."""
    invocation = Invocation()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            outcome = _app(COMMANDS.keys() & set(arguments))(
                list(arguments), prog_name=report.COMMAND, standalone_mode=False, obj=invocation
            )
    except (KeyboardInterrupt, typer.Abort):
        outcome = report.INTERRUPTED
    except StoppedError as error:
        report.print_errors([f"{report.COMMAND}: {report.STOPPED[error.number]}"])
        return 128 + error.number
    except ClosedPipeError:
        return report.FAILED
    except Exception as error:  # noqa: BLE001  # nothing but a line comes out of the command
        if invocation.debug:
            traceback.print_exception(error)
        report.print_errors(report.error_lines(error))
        return report.exit_code(error)
    if outcome == report.INTERRUPTED:
        report.print_errors([f"{report.COMMAND}: interrupted"])
    return outcome if isinstance(outcome, int) else 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    report.print_errors([f"{report.COMMAND}: warning: {message}"])


def whole() -> typer.Typer:
    """With all commands."""
    return _app(COMMANDS)


def _app(names: Collection[str]) -> typer.Typer:
    """With the commands of these names; with all of them for no name, since the help and suggestions list them."""
    app = typer.Typer(
        cls=Group,
        context_settings=SETTINGS,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 130 interrupted.",
    )
    app.callback()(common)
    for name, module in COMMANDS.items():
        if not names or name in names:
            command: Any = getattr(import_module(f".{module}", __package__), OTHERWISE_NAMED.get(name, name))
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=name)
            else:
                app.command(name, cls=Command)(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            say([f"{report.COMMAND} {version('micelio_storage')}"])
        except PackageNotFoundError:
            say([f"{report.COMMAND}, not installed: run from its source"])
        raise typer.Exit


def common(
    context: typer.Context,
    storage: StorageOption = None,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[  # noqa: ARG001  # its callback acts
        bool, typer.Option("--version", help="show the version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Work with the objects and sessions of a storage."""
    invocation = Invocation.of(context)
    invocation.url, invocation.debug = storage, debug
