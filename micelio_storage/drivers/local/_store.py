"""What the driver keeps for itself in `<root>/.micelio`, and what the root's file system can do."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from typing import Protocol

from ...driver import ConfigError
from ._attributes import AttributeFiles, Keeping, inode_keeps_attributes
from ._locks import Locks
from ._root import OWN_DIRECTORY, OwnDirectory, Root
from ._staging import Staged, Staging

COARSEST_TIME = 1_000_000  # ns: a version is told from the next by its time, and an inode is not reused as fast as that
_PROBE_TIME = 1_234_567_891_234_567_891  # ns: every digit shows
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Store:
    """Staging, locks and attributes of one open driver. What writes needs to have been `probed`."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._turn = threading.Lock()
        self._probed = False
        self.in_inode = self.links = False
        self.files = find_files(root)
        with ExitStack() as undo:
            if self.files is not None:
                undo.callback(self.files.close)
            self.locks = Locks(OwnDirectory(root, b"locks"))
            undo.callback(self.locks.close)
            self.staging = Staging(OwnDirectory(root, b"staging"))
            undo.callback(self.staging.close)
            self.locks.make()
            self.staging.sweep()
            undo.pop_all()

    def probe(self, keeping: Keeping) -> None:
        """Find out, before the first write, what the file system can do. It needs room for a file to try with."""
        if self._probed:
            return
        with self._turn:
            if self._probed:
                return
            self.in_inode, self.links = self._probe(keeping)
            if self.files is None and not self.in_inode:
                self.files = AttributeFiles(OwnDirectory(self._root, b"attributes"))
            self._probed = True

    def _probe(self, keeping: Keeping) -> tuple[bool, bool]:
        """Whether inodes keep attributes here, and files can be linked."""
        probe = self.staging.create()
        try:
            _check_times(probe)
            _check_names(probe)
            in_inode = keeping != "file" and inode_keeps_attributes(probe.descriptor)
            if keeping == "xattr" and not in_inode:
                raise ConfigError("the root's file system has no extended attributes: use 'auto'")
            return in_inode, _can_link(probe)
        finally:
            probe.discard()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self.locks.abandon()
        if self.files is not None:
            self.files.close()
        self.staging.abandon()

    def close(self) -> None:
        """Give everything back and leave no staging behind."""
        self.locks.close()
        if self.files is not None:
            self.files.close()
        self.staging.close()


class StoreOf(Protocol):
    """Gives the driver's own files, made at the first write; `probed` unless only deletes need them."""

    def __call__(self, *, probed: bool = True) -> Store: ...


def find_files(root: Root) -> AttributeFiles | None:
    """The attributes that are kept in files of their own, if there are any in this root."""
    if not root.has(OWN_DIRECTORY + b"/attributes"):
        return None
    return AttributeFiles(OwnDirectory(root, b"attributes"))


def is_in_use(root: Root) -> bool:
    """Whether a storage has written here."""
    return root.has(OWN_DIRECTORY + b"/staging") and root.has(OWN_DIRECTORY + b"/locks")


def _exists(above: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _check_times(probe: Staged) -> None:
    os.utime(probe.descriptor, ns=(_PROBE_TIME, _PROBE_TIME))
    if abs(os.fstat(probe.descriptor).st_mtime_ns - _PROBE_TIME) > COARSEST_TIME:
        raise ConfigError(
            "the root's file system stores times too coarsely to tell versions of an object apart"
            " (ext4 keeps them finely with inodes of 256 bytes): choose another place"
        )


def _check_names(probe: Staged) -> None:
    """Refuse a file system that finds a file under a name that is another key's: one object would overwrite another."""
    assert probe.name is not None  # it is new
    name = probe.name + "-\u00e9".encode()
    os.rename(probe.name, name, src_dir_fd=probe.directory, dst_dir_fd=probe.directory)
    probe.name = name
    for other, which in ((name.upper(), "in case"), (probe.name[:-2] + "e\u0301".encode(), "in Unicode's normal form")):
        if _exists(probe.directory, other):
            raise ConfigError(
                f"the root's file system treats names that differ only {which} as the same, so such keys would"
                " overwrite each other: choose another place"
            )


def _can_link(probe: Staged) -> bool:
    assert probe.name is not None  # it is new
    second = probe.name + b"-link"
    try:
        os.link(probe.name, second, src_dir_fd=probe.directory, dst_dir_fd=probe.directory)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    os.unlink(second, dir_fd=probe.directory)
    return True
