"""The calls of a LangGraph checkpointer that have no `await`: each is the one that has, on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import ClosedError, InvalidArgumentError

T = TypeVar("T")


class OtherThreads(BaseCheckpointSaver[int]):
    """A checkpointer that may be called from other threads than that of the event loop on which it was made."""

    def __init__(self, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput`, from another thread than the event loop's."""
        return self._run(lambda: self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`aput_writes`, from another thread than the event loop's."""
        self._run(lambda: self.aput_writes(config, writes, task_id, task_path))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`aget_tuple`, from another thread than the event loop's."""
        return self._run(lambda: self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # so the framework calls it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """`alist`, from another thread than the event loop's."""
        found = self.alist(config, filter=filter, before=before, limit=limit)

        async def step() -> CheckpointTuple | None:
            return await anext(found, None)

        while (loaded := self._run(step)) is not None:
            yield loaded

    def delete_thread(self, thread_id: str) -> None:
        """`adelete_thread`, from another thread than the event loop's."""
        self._run(lambda: self.adelete_thread(thread_id))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`acopy_thread`, from another thread than the event loop's."""
        self._run(lambda: self.acopy_thread(source_thread_id, target_thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`adelete_for_runs`, from another thread than the event loop's."""
        self._run(lambda: self.adelete_for_runs(run_ids))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`aprune`, from another thread than the event loop's."""
        self._run(lambda: self.aprune(thread_ids, strategy=strategy))

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._loop is None:
            raise InvalidArgumentError(
                "this saver was made where no event loop ran, so only its calls with `await` have one: make it on the "
                "loop on which its storage is open, or use MicelioSaver.from_conn_string"
            )
        with suppress(RuntimeError):
            if asyncio.get_running_loop() is self._loop:
                raise asyncio.InvalidStateError(
                    "a call without `await` would hold up the event loop: use the one with it (aget_tuple for "
                    "get_tuple, ainvoke for invoke)"
                )
        if not self._loop.is_running():
            raise ClosedError("the event loop on which the saver was made has ended")
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
