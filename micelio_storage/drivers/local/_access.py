"""Who else may use what is made here: modes and group of files and directories.

The umask takes bits away from what a process makes, and each directory decides about the group of what is made in it.
So files and directories get what was asked for, whatever these say, before anybody finds them under their names: a
second user of the group that came between making and changing would be refused for no reason.
"""

from __future__ import annotations

import errno
import grp
import os
import stat
from dataclasses import dataclass
from secrets import token_hex

from ..._config import LARGEST_GROUP
from ...driver import ConfigError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# EINVAL is said of a group that a container does not know.
_NOT_LET = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Modes of files and directories, and their group (a name, a number, or None for that of the directory above or of
    the process, as the system has it). `setting` is what an error about the group tells to change."""

    file_mode: int = FILE_MODE
    directory_mode: int = DIRECTORY_MODE
    group: str | int | None = None
    setting: str = "the group"

    def resolve(self) -> Granting:
        """With the number of the group, which may have to be asked for over a network."""
        return Granting(self.file_mode, self.directory_mode, _number_of(self.group, self.setting), self)


class Granting:
    """Makes files and directories that others may use."""

    def __init__(self, file_mode: int, directory_mode: int, group: int | None, asked: Access) -> None:
        self.file_mode = file_mode
        self.directory_mode = directory_mode
        writers = directory_mode & 0o222
        self.lock_mode = FILE_MODE | writers | writers << 1  # who may write in directories has to lock
        self._group = group
        self._asked = asked
        self._plain = (file_mode, directory_mode, group) == (FILE_MODE, DIRECTORY_MODE, None)

    def open_new(self, name: bytes, directory: int) -> int:
        """A new file, under a name that nobody else looks for yet."""
        descriptor = os.open(name, _NEW, self.file_mode, dir_fd=directory)
        try:
            self.grant(descriptor, self.file_mode)
        except BaseException:
            os.close(descriptor)
            os.unlink(name, dir_fd=directory)
            raise
        return descriptor

    def make_directory(self, name: bytes, directory: int) -> None:
        """Make a directory, which appears with its mode and group; `FileExistsError` if something is there. An empty
        directory that somebody else makes at the same moment may be replaced, as if a cleaner had been there."""
        if self._plain:
            os.mkdir(name, DIRECTORY_MODE, dir_fd=directory)
            return
        _refuse_present(name, directory)
        new = _passing_name()
        os.mkdir(new, self.directory_mode & 0o777, dir_fd=directory)
        try:
            descriptor = os.open(new, _DIRECTORY, dir_fd=directory)
            try:
                self.grant(descriptor, self.directory_mode)
            finally:
                os.close(descriptor)
            _rename_directory(new, name, directory)
        except BaseException:
            _remove(new, directory)
            raise

    def make_lock_file(self, name: bytes, directory: int) -> None:
        """Make a file for locks, unless it is there. It is linked into place, for a rename would put it in the place of
        one that somebody has locked."""
        if self._plain:
            os.close(os.open(name, _NEW & ~os.O_EXCL, FILE_MODE, dir_fd=directory))
            return
        new = _passing_name()
        descriptor = os.open(new, _NEW, self.lock_mode, dir_fd=directory)
        try:
            self.grant(descriptor, self.lock_mode)
            os.link(new, name, src_dir_fd=directory, dst_dir_fd=directory)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(name, _NEW & ~os.O_EXCL, self.lock_mode, dir_fd=directory))
        finally:
            os.close(descriptor)
            os.unlink(new, dir_fd=directory)

    def grant(self, descriptor: int, mode: int) -> None:
        """Give a new file or directory its mode and group; what cannot be had is a `ConfigError`. A setgid bit that a
        directory has from the one above stays."""
        if self._plain:
            return
        status = os.fstat(descriptor)
        if self._group is not None and status.st_gid != self._group:
            self._give(descriptor, self._group)
            status = os.fstat(descriptor)
        wanted = mode | (status.st_mode & stat.S_ISGID)
        if stat.S_IMODE(status.st_mode) == wanted:
            return  # and it is not asked for again: the system would take the setgid bit from one that is no member
        try:
            os.fchmod(descriptor, wanted)
        except OSError as error:
            if error.errno in _NOT_LET:
                raise _cannot_keep(wanted) from error
            raise
        kept = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if kept == wanted:
            return
        if kept == wanted & ~stat.S_ISGID:
            raise ConfigError(
                f"directories cannot have mode {wanted:04o}, for this process is not a member of their group"
                f" ({status.st_gid}): run it as a member, or with a umask that leaves the mode as it is"
            )
        raise _cannot_keep(wanted)

    def _give(self, descriptor: int, group: int) -> None:
        try:
            os.fchown(descriptor, -1, group)
        except OSError as error:
            if error.errno in _NOT_LET:
                raise ConfigError(
                    f"this process may not give files to the group {self._asked.group!r} ({error.strerror}): run it as"
                    f" a member, or change {self._asked.setting} to one of its groups"
                ) from error
            raise


def _number_of(group: str | int | None, setting: str) -> int | None:
    """That of a name; digits are a number unless a group is called so, as `chgrp` has it."""
    if not isinstance(group, str):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isascii() and group.isdigit() and int(group) <= LARGEST_GROUP:
            return int(group)
    raise ConfigError(f"there is no group {group!a} on this machine: change {setting} to one of `getent group`")


def _refuse_present(name: bytes, directory: int) -> None:
    """Look first: who may only read here, or has a full disk, is to find what is there."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _passing_name() -> bytes:
    """For the moment in which modes are set. Should the process end just then, an empty directory or file stays."""
    return b".micelio-" + token_hex(8).encode()


def _rename_directory(new: bytes, name: bytes, directory: int) -> None:
    try:
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
        raise


def _remove(directory: bytes, above: int) -> None:
    try:
        os.rmdir(directory, dir_fd=above)
    except FileNotFoundError:
        pass  # a cleaner was quicker


def _cannot_keep(mode: int) -> ConfigError:
    return ConfigError(
        f"the root's file system does not keep the mode {mode:04o}: choose another place, or leave the modes out"
    )
