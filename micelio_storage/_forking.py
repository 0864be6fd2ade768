"""What a forked child may not have of its parent: its locks, its files, and its connections.

A child has every descriptor of its parent and every object, but none of its threads, and its event loop polls what the
parent's polls. So what was open is given up in the child by the plainest means, and whatever else hangs on it is left
as it is for ever: an object that cleaned up after itself there would do it to the parent.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")

_acts: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def when_forked(thing: T, act: Callable[[T], None]) -> None:
    """Call `act` with the thing in each child that is forked while the thing lives. It may wait for nothing."""
    _acts[thing] = act


def leave_alone(*things: object) -> None:
    """Never free the things, nor what they refer to, not even when the interpreter ends."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def hold_while_forking(lock: Lock) -> None:
    """Fork only while nobody has the lock, so that a child finds it free, and what it guards as a whole. For locks that
    are held for microseconds, and for the life of the process."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def _in_child() -> None:
    for thing, act in list(_acts.items()):
        act(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
