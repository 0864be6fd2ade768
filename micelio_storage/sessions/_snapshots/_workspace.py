"""A directory that survives: what was saved last is there when work begins, and is saved when it ends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

import anyio

from ..._errors import InvalidArgumentError, KeyConflictError
from ..._turns import in_thread
from ...transfer import TreeReport
from .._usage import MAX_FILES
from ._history import Snapshots
from ._snapshot import Snapshot

SaveWhen: TypeAlias = Literal["on_exit", "on_success", "never"]
"""When leaving a workspace saves it: always, if nothing was raised, or not at all."""


class Workspace:
    """A directory that is a session's: made by `Session.workspace`, for `async with`.

    ```python
    async with Session(storage, "abc123").workspace("work") as workspace:
        ...  # any program works in the directory
        await workspace.save("after step 12")
    ```
    """

    def __init__(
        self,
        snapshots: Snapshots,
        path: str | os.PathLike[str],
        *,
        save: SaveWhen = "on_exit",
        delete: bool = False,
        ignore: Sequence[str] = (),
        max_files: int = MAX_FILES,
        max_bytes: int | None = None,
        max_file_bytes: int | None = None,
    ) -> None:
        if save not in get_args(SaveWhen):
            raise InvalidArgumentError(f"save must be one of {', '.join(get_args(SaveWhen))}, not {save!a}")
        self.path = os.fspath(path)
        self._snapshots = snapshots
        self._when = save
        self._delete = delete
        self._ignore = ignore
        self._limits = {"max_files": max_files, "max_bytes": max_bytes, "max_file_bytes": max_file_bytes}
        self._latest: Snapshot | None = None
        self._report = TreeReport()

    @property
    def latest(self) -> Snapshot | None:
        """The snapshot that was loaded or saved last; None where nothing was saved yet."""
        return self._latest

    @property
    def report(self) -> TreeReport:
        """What loading did."""
        return self._report

    async def __aenter__(self) -> Self:
        await self.load()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._when == "never" or (error is not None and self._when == "on_success"):
            return
        with anyio.CancelScope(shield=True):  # a run that is cancelled is saved too
            await self.save("" if error is None else f"left with {type(error).__name__}")

    async def load(self) -> TreeReport:
        """Make the directory as it was saved last; as it is, and made if need be, where nothing was. Files that were
        not saved stay, unless the workspace was made with `delete`. `KeyConflictError` where something stands in the
        way of what was saved: it would be missing from the next snapshot."""
        self._latest = await self._snapshots.latest()
        if self._latest is None:
            await in_thread(partial(os.makedirs, self.path, exist_ok=True))
            return self._report
        self._report = await self._latest.write_to(self.path, delete=self._delete, ignore=self._ignore)
        if self._report.failed:
            first = next(each for each in self._report.unsolved if each.result == "failed")
            text = f"{self._report.failed} files could not be written, {first.path!a} first: {first.reason}"
            raise KeyConflictError(text)
        return self._report

    async def save(
        self,
        message: str = "",
        *,
        tags: Mapping[str, str] | None = None,
        if_parent: Snapshot | str | None = None,
    ) -> Snapshot:
        """Keep the directory as it is: what has changed is stored, as `Snapshots.create` does it."""
        self._latest = await self._snapshots.create(
            message,
            tags=tags,
            directory=self.path,
            if_parent=if_parent,
            ignore=self._ignore,
            max_files=self._limits["max_files"] or 0,
            max_bytes=self._limits["max_bytes"],
            max_file_bytes=self._limits["max_file_bytes"],
        )
        return self._latest
