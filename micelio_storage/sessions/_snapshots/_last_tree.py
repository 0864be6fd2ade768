"""What was read last, and never changes."""

from __future__ import annotations

from ..._storage import Storage
from ._manifest import Tree, load_tree
from ._records import Record, SegmentRef


class LastTree:
    """The tree of the snapshot that was made or read last, for who bases the next one on it: segments never change."""

    def __init__(self, _: object = None) -> None:
        self._segments: tuple[SegmentRef, ...] = ()
        self._tree: Tree = {}

    async def of(self, place: Storage, record: Record | None) -> Tree:
        """The tree of a snapshot."""
        if record is None or not record.segments:
            return {}
        if record.segments == self._segments:
            return self._tree
        tree = await load_tree(place, record)
        self.keep(record.segments, tree)
        return tree

    def keep(self, segments: tuple[SegmentRef, ...], tree: Tree) -> None:
        """Remember it instead of the one before."""
        self._segments, self._tree = segments, tree
