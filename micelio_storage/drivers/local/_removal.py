"""The removal of all objects below a prefix, as deletes of them would do it, and a directory at a time.

What a delete of one object looks up anew, its neighbours share: the directory, which is read and opened once, the
lock, of which there are fewer than objects, and the sync. Names are enough for it; nothing is asked of a file. The
tree is walked down to its leaves, so that each directory that has lost its last object goes before the one above it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, closing

from ...driver import MOST_FAILURES, Cleared, Key, Prefix, StorageError
from .._lanes import Published, Steps, SyncDirectory
from ._errors import translate
from ._levels import FOREIGN, MOST_NAMES, NO_FILES, Level, Place, Skipped, directory_path, shorten
from ._locks import add_by_shard
from ._root import Root, release
from ._store import StoreOf

STEP = 1_000  # objects removed in one hop, about 5 ms: a lock for each is one of 64 for all of them
DIRECTORY = 5  # objects whose removal takes as long as reading and removing a directory
MOST_DIRECTORIES = 64  # held open in one hop


class Removal:
    """One removal, which goes on from hop to hop. For worker threads."""

    def __init__(self, root: Root, store: StoreOf, prefix: Prefix, spared: Sequence[str], *, durable: bool) -> None:
        self._root = root
        self._store = store
        self._spared = frozenset(spared)
        self._durable = durable
        self._count = 0
        self._skipped = Skipped(naming=False)
        self._failures: dict[Key, StorageError] = {}
        top, slash, start = prefix.rpartition("/")
        self._levels = [_Doomed(root, top + slash, start, None)]

    @property
    def goes_on(self) -> bool:
        """Whether there may be more to remove."""
        return bool(self._levels) and len(self._failures) < MOST_FAILURES

    def result(self) -> Cleared:
        """What came of it."""
        skipped = self._skipped
        return Cleared(count=self._count, skipped=skipped.count, foreign=skipped.names, failures=self._failures)

    def step(self) -> Steps[None]:
        """Remove the next objects, and the directories that have none any more."""
        with ExitStack() as held:
            chosen, done = self._choose(held)
            shorten(self._levels, MOST_NAMES)
            for shard in {shard for groups in chosen.values() for shard in groups}:
                lock = yield from self._store(probed=False).locks.share(shard)
                try:
                    for level, groups in chosen.items():
                        self._unlink(level, groups.get(shard, ()))
                finally:
                    lock.release()
                yield Published(last=False)
            with closing(Place(self._root)) as place:
                for level in done:
                    yield from self._leave(level, place)

    def _choose(self, held: ExitStack) -> tuple[dict[_Doomed, dict[int, list[bytes]]], list[_Doomed]]:
        """What is next: names of objects by their locks, for each directory, which is held open; and the directories
        that are done then, those below before those above."""
        chosen: dict[_Doomed, dict[int, list[bytes]]] = {}
        done: list[_Doomed] = []
        room = STEP
        while self._levels:
            level = self._levels[-1]
            if not level.fill(self._root):
                done.append(self._levels.pop())
            elif room <= 0 or len(chosen) == MOST_DIRECTORIES:
                break
            elif names := level.take_files(room, self._spared):
                if level in chosen or level.hold(self._root, held):
                    add_by_shard(chosen.setdefault(level, {}), directory_path(level.path), names)
                room -= len(names)
            else:
                self._pass(level, level.names.next.pop())
                room -= DIRECTORY
        return chosen, done

    def _pass(self, level: _Doomed, name: str) -> None:
        """Go down into a directory, or leave out what is to stay."""
        if name.endswith(FOREIGN) or level.path + name.rstrip("/") in self._spared:
            self._skipped.add(self._root, level.path + name.removesuffix(FOREIGN))
        else:
            self._levels.append(_Doomed(self._root, level.path + name, "", level))

    def _unlink(self, level: _Doomed, names: Iterable[bytes]) -> None:
        for name in names:
            level.has_lost = True
            try:
                os.unlink(name, dir_fd=level.descriptor)
            except FileNotFoundError:
                pass  # somebody else was quicker
            except OSError as error:
                self._failures[Key.of_segments(level.path + name.decode())] = translate(error, self._root.path)
            else:
                self._count += 1

    def _leave(self, level: _Doomed, place: Place) -> Steps[None]:
        """Remove the directory if it is empty now. What is synced then is the one that has lost it: with its name all
        is gone that was below."""
        if not level.has_lost:
            return
        if level.above is None:
            yield from self._sync(directory_path(level.path))
            self._root.prune(directory_path(level.path))
        elif _remove_directory(place.at(level.above.path), level.name):
            level.above.has_lost = True
        else:
            yield from self._sync(directory_path(level.path))

    def _sync(self, path: bytes) -> Steps[None]:
        """Have on the disk what the directory has lost; or what has lost the directory, if somebody was quicker."""
        if not self._durable:
            return
        while (descriptor := self._root.find_directory(path)) is None:
            path = path.rpartition(b"/")[0]
        try:
            yield SyncDirectory(descriptor)
        finally:
            release(descriptor)


class _Doomed(Level):
    """A directory on the way that is to go."""

    __slots__ = ("above", "descriptor", "has_lost")

    def __init__(self, root: Root, path: str, start: str, above: _Doomed | None) -> None:
        super().__init__(root, path, start, "")
        self.above = above
        self.has_lost = False
        self.descriptor = -1

    @property
    def name(self) -> bytes:
        """Its name in the directory above."""
        return directory_path(self.path).rpartition(b"/")[2]

    def take_files(self, most: int, spared: Collection[str]) -> list[bytes]:
        """Take the names of objects off that come before anything else."""
        taken: list[bytes] = []
        names = self.names.next
        while names and len(taken) < most and not names[-1].endswith(NO_FILES):
            if spared and self.path + names[-1] in spared:
                break
            taken.append(names.pop().encode())
        return taken

    def hold(self, root: Root, held: ExitStack) -> bool:
        """Open it, if it is still there."""
        descriptor = root.find_directory(directory_path(self.path))
        if descriptor is None:
            return False
        held.callback(release, descriptor)
        self.descriptor = descriptor
        return True


def _remove_directory(above: int | None, name: bytes) -> bool:
    """Whether it is gone; one that is not empty, or not ours to remove, stays."""
    if above is None:
        return True
    try:
        os.rmdir(name, dir_fd=above)
    except FileNotFoundError:
        pass  # somebody else was quicker
    except OSError:
        return False
    return True
