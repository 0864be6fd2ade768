"""The commands that try a store out: the conformance kit, and a demonstration with real files."""

from __future__ import annotations

import os
import secrets
import shlex
import sysconfig
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from .. import Config, LocalConfig, MemoryConfig, make_driver, open_storage
from ..testing import Result, run_all
from . import _report as report
from ._demo import run_demo
from ._invocation import Invocation, ask, run_on_loop
from ._options import JsonOption, StorageOption, UrlArgument, YesOption
from ._pipes import say

NOT_THE_LIBRARY = frozenset({"site-packages", "__pycache__"})  # what the standard library's directory has besides it
ARTIFACT_MIB = 256
MIB = 1 << 20


def check(
    context: typer.Context, url: UrlArgument = None, as_json: JsonOption = False, storage: StorageOption = None
) -> None:
    """Run the conformance kit: does a store keep every promise?

    It works below scratch prefixes, and removes what it stored."""
    config = Invocation.of(context, storage, url).config()

    async def act() -> list[Result]:
        async with open_storage(config):
            pass  # what is wrong with the store as such is said once, and not by every check
        return await run_all(partial(make_driver, config), tell=lambda result: tell(result.name))

    with report.steps() as tell:
        results = run_on_loop(act())
    say(report.check_json(results) if as_json else report.check_lines(results, report.place(config)))
    if any(result.error is not None for result in results):
        raise typer.Exit(report.FAILED)


DirectoryArgument: TypeAlias = Annotated[
    Path | None,
    typer.Argument(metavar="DIRECTORY", help="what to store; default: Python's library", exists=True, file_okay=False),
]


def demo(
    context: typer.Context,
    directory: DirectoryArgument = None,
    artifact_mib: Annotated[int, typer.Option(min=0, metavar="MIB", help="size of the artifact")] = ARTIFACT_MIB,
    keep: Annotated[bool, typer.Option("--keep", help="leave the session in the storage")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Store real files as a session, read them back, compare, and measure.

    It stores a directory and one large artifact, and removes the session in the end. It asks before it writes into a
    storage that the environment names and that is there already."""
    invocation = Invocation.of(context, storage)
    config = invocation.config()
    if not yes and invocation.url is None and _is_in_use(config):
        ask(lambda: f"Store a session of the demo, which is removed in the end, in {report.place(config)}?")
    session_id = f"demo-{secrets.token_hex(4)}"
    source = Path(sysconfig.get_path("stdlib")) if directory is None else directory
    if not as_json:
        say([f"storing {source} as session {session_id} in {report.place(config)}"])
    with report.steps() as tell:
        act = partial(
            run_demo,
            directory=source,
            excluded=NOT_THE_LIBRARY if directory is None else (),
            session_id=session_id,
            artifact_bytes=artifact_mib * MIB,
            keep=keep,
            tell=tell,
        )
        figures = invocation.run(act)
    if as_json:
        say([report.figures_json(figures, session_id, config, keep=keep)])
        return
    report.show_figures(figures)
    again = report.COMMAND + ("" if invocation.url is None else f" --storage {shlex.quote(invocation.url)}")
    say(report.demo_end(figures, session_id, config, again, keep=keep))


def _is_in_use(config: Config) -> bool:
    """Whether the storage was set up for something else than demos."""
    if config == LocalConfig() or isinstance(config, MemoryConfig):
        return False
    return not isinstance(config, LocalConfig) or os.path.exists(report.place(config))
