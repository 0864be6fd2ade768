"""The arguments and options that several commands have, so that each has one name, one letter and one meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

from .. import InvalidArgumentError
from ..transfer import MOST_CONCURRENCY

STORAGE = "file:///path, memory: or s3://bucket/prefix"

KeyArgument: TypeAlias = Annotated[str, typer.Argument(metavar="KEY", help="the object's key")]
SessionArgument: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="the session's id")]
UrlArgument: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="URL", help=f"{STORAGE}; default: --storage, else the environment's")
]
StorageOption: TypeAlias = Annotated[
    str | None, typer.Option("--storage", "-s", metavar="URL", help=f"{STORAGE}; default: the environment's")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="write JSON, one object a line")]
OverwriteOption: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="replace objects at TARGET that differ")]
DryRunOption: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="report what would be done, change nothing")]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
RecursiveOption: TypeAlias = Annotated[bool, typer.Option("--recursive", "-r", help="a directory, and a prefix")]
IfAbsentOption: TypeAlias = Annotated[bool, typer.Option("--if-absent", help="fail if there is an object already")]
ConcurrencyOption: TypeAlias = Annotated[
    int, typer.Option(min=1, max=MOST_CONCURRENCY, metavar="N", help="objects at the same time")
]


def parse_pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """The names and values of an option that is given once for each."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgumentError(f"{option} {text!a} is not of the form name=value")
        if name in pairs:
            raise InvalidArgumentError(f"{option} {name!a} is given twice")
        pairs[name] = value
    return pairs
