"""The names of a directory in their order, however many there are: only the least are kept, and few are sorted at once.

A directory names its entries in no order. To sort a million names in one go holds the interpreter's lock, and so the
event loop, for half a second, and to keep them takes 100 MB. So they are dealt into short rows as they come, by where
they belong, and each row is sorted when it is its turn. The last rows are given up where there are too many, and what
was in them is read again when all before has been taken.
"""

from __future__ import annotations

from bisect import bisect_right

ROW = 1024  # names that are sorted in one go, at most twice as many: less than 1 ms


class Names:
    """Names to be taken from the end of `next`, the least first; `fill` goes on when there are none. Where some were
    given up, `rest` is the least of these."""

    __slots__ = ("_dealt", "_least", "_rows", "next", "rest")

    def __init__(self) -> None:
        self.next: list[str] = []
        self.rest: str | None = None
        self._rows: list[list[str]] = [[]]
        self._least = [""]  # of what belongs into each row
        self._dealt = 0  # names in all rows

    @property
    def size(self) -> int:
        """How many are kept."""
        return len(self.next) + self._dealt

    def add(self, name: str, most: int) -> None:
        """One more, of which so many are kept: a row or two more while they come."""
        if self.rest is not None and name >= self.rest:
            return
        at = bisect_right(self._least, name) - 1
        row = self._rows[at]
        row.append(name)
        self._dealt += 1
        if len(row) > 2 * ROW:
            row.sort()
            self._rows.insert(at + 1, row[ROW:])
            self._least.insert(at + 1, row[ROW])
            del row[ROW:]
        if self._dealt > most + 2 * ROW:
            self.shorten(most)

    def fill(self) -> bool:
        """Whether there is a next one."""
        while not self.next and self._rows:
            self.next = self._rows.pop(0)
            self._dealt -= len(self.next)
            self.next.sort(reverse=True)
        return bool(self.next)

    def shorten(self, most: int) -> None:
        """Give up the greatest, so that no more than so many are left."""
        over = self.size - most
        while over > 0:
            row = self._rows[-1] if self._rows else self.next
            row.sort(reverse=True)
            given_up = row[:over]
            del row[:over]
            if given_up:
                self.rest = given_up[-1]
                over -= len(given_up)
            if self._rows:
                self._dealt -= len(given_up)
                if not row:
                    self._rows.pop()
                    self._least.pop()
