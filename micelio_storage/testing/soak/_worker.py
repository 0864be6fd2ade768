"""One process of a soak: many tasks that do to their keys whatever can be done, and look at what they find.

Started by `_run`, which may kill it at any moment: `python -m micelio_storage.testing.soak._worker`. Its orders are one
line on standard input, and the end of that is the end of its work. What it does it says on standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from ..._config import Config, LocalConfig, Origin, S3Config
from ..._open import open_storage
from ._actor import Actor
from ._calls import World
from ._model import judge_move, read_whole, value_in
from ._session_actor import SessionActor


def config_out(config: Config) -> dict[str, Any]:
    """A configuration as JSON can hold it."""
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    if fields.get("path") is not None:
        fields["path"] = os.fspath(fields["path"])
    return {"backend": "s3" if isinstance(config, S3Config) else "local", "fields": fields}


def config_in(written: Mapping[str, Any]) -> Config:
    kind = S3Config if written["backend"] == "s3" else LocalConfig
    fields: dict[str, Any] = dict(written["fields"])
    fields["_origin"] = Origin(*fields["_origin"])  # JSON has made a list of it
    return kind(**fields)


async def work(orders: Mapping[str, Any]) -> None:
    """Do as ordered until standard input ends."""
    await asyncio.sleep(orders["wait"])
    async with open_storage(config_in(orders["config"])) as storage:
        world = World(orders, storage)
        asyncio.get_running_loop().add_reader(0, _stop_at_end, world)
        name = f"{orders['number']}.{orders['run']}"
        actors = [
            Actor(world, task, f"{name}.{task}", f"{orders['seed']}/{name}/{task}") for task in range(orders["tasks"])
        ]
        others = [
            SessionActor(world, task, f"{name}-s{task}".replace(".", "-"), f"{orders['seed']}/{name}/s{task}")
            for task in range(len(world.kept))
        ]
        await _finish_moves(world, orders["moves"])
        world.say(ready=True)
        async with asyncio.TaskGroup() as group:
            for actor in actors:
                group.create_task(_act(actor, after=orders["run"] > 0))
            for other in others:
                group.create_task(other.run())


async def _act(actor: Actor, *, after: bool) -> None:
    if after:
        await actor.look_over()
    await actor.run()


async def _finish_moves(world: World, moves: list[list[Any]]) -> None:
    """What was being moved when the last process was killed is at one of the two places."""
    for source, target, written in moves:
        moved = value_in(written)
        assert moved is not None  # what is moved was there
        found = {key: await read_whole(world.storage, key) for key in (source, target)}
        if loss := judge_move(source, target, moved, found):
            world.lose(loss)


def _stop_at_end(world: World) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        world.stopping = True


def main() -> None:
    try:
        asyncio.run(work(json.loads(sys.stdin.buffer.readline())))
    except BrokenPipeError:
        sys.exit(1)  # nobody is interested any more


if __name__ == "__main__":
    main()
