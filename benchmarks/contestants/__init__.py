"""Who is measured, and what each of them promises: a rate says little without it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import metadata

from . import aws, files, obstore, opendal, ours, programs
from .base import Contestant, Entrant, NotOfferedError, Target

__all__ = ["LOCAL", "PROGRAMS", "S3", "Contestant", "Entrant", "NotOfferedError", "Target", "version_of"]

LOCAL: Mapping[str, Entrant] = {
    "ours": Entrant(
        make=partial(ours.local, durable=False),
        distribution="micelio_storage",
        role="ours",
        note="staged, then renamed: whole or not there; nothing synced (`durable=False`); CRC64NVME kept for streams; "
        "keys and links checked; listings in key order",
    ),
    "ours durable": Entrant(
        make=partial(ours.local, durable=True),
        distribution="micelio_storage",
        role="ours",
        durable=True,
        note="the default: as above, and file and directories synced before it is acknowledged",
    ),
    "file an event": Entrant(
        make=partial(ours.local, durable=False, each_alone=True),
        distribution="micelio_storage",
        role="peer",
        note="ours, with an object for each event instead of the log; nothing synced",
    ),
    "file an event durable": Entrant(
        make=partial(ours.local, durable=True, each_alone=True),
        distribution="micelio_storage",
        role="peer",
        durable=True,
        note="the same, synced before it is acknowledged",
    ),
    "raw": Entrant(
        make=partial(files.Raw, durable=False),
        distribution=None,
        role="raw",
        note="one thread, no event loop, one call after another; staged, then renamed; nothing checked",
    ),
    "raw durable": Entrant(
        make=partial(files.Raw, durable=True),
        distribution=None,
        role="raw",
        durable=True,
        note="as raw, with fsync of the file and of its directory, one after another",
    ),
    "obstore": Entrant(
        make=obstore.local,
        distribution="obstore",
        role="peer",
        note="staged beside the object, then renamed; never syncs; no checksum; listings in no order",
    ),
    "opendal": Entrant(
        make=partial(opendal.local, atomic=False),
        distribution="opendal",
        role="peer",
        durable=None,
        note="written in place, not atomic; fsyncs the file when it is closed; no checksum; listings in no order and "
        "without size and time (looked up 64 at once, then sorted)",
    ),
    "opendal atomic": Entrant(
        make=partial(opendal.local, atomic=True),
        distribution="opendal",
        role="peer",
        durable=True,
        note="`atomic_write_dir`: staged, fsync of the file but not of the directory, renamed; no checksum",
    ),
    "fsspec": Entrant(
        make=files.Fsspec,
        distribution="fsspec",
        role="peer",
        note="no coroutines: in a thread; listings all at once, sorted",
    ),
    "aiofiles": Entrant(
        make=files.AiofilesByHand,
        distribution="aiofiles",
        role="peer",
        note="by hand: written in place, not atomic, nothing synced, no checksum; a thread hop for each step",
    ),
}

S3: Mapping[str, Entrant] = {
    "ours": Entrant(
        make=ours.s3,
        distribution="micelio_storage",
        role="ours",
        note="CRC64NVME sent and verified, payload unsigned; lost answers of conditional writes resolved; a read "
        "that breaks is resumed in the same version",
    ),
    "aioboto3": Entrant(
        make=aws.Aioboto3ByHand,
        distribution="aioboto3",
        role="peer",
        note="by hand, one client with 100 connections, otherwise defaults: SHA-256 and CRC32 sent; `upload_fileobj`; "
        "one GET for a stream",
    ),
    "obstore": Entrant(
        make=partial(obstore.s3, signed=True),
        distribution="obstore",
        role="peer",
        note="defaults: payload signed with SHA-256, nothing verified on reading; one GET for a stream",
    ),
    "obstore unsigned": Entrant(
        make=partial(obstore.s3, signed=False),
        distribution="obstore",
        role="peer",
        note="`unsigned_payload=True`: as above, and nothing verified on writing either",
    ),
    "opendal": Entrant(
        make=opendal.s3,
        distribution="opendal",
        role="peer",
        note="defaults: payload unsigned, no checksum, nothing tried again; a file object for a stream",
    ),
    "s3fs": Entrant(
        make=aws.S3fs,
        distribution="s3fs",
        role="peer",
        note="its coroutines on this loop, 100 connections: SHA-256 and CRC32 sent; writing a stream through its file "
        "object in a thread",
    ),
}

PROGRAMS: Mapping[str, Entrant] = {
    "ours": Entrant(
        make=partial(programs.Ours, durable=False),
        distribution="micelio_storage",
        role="ours",
        note="`upload_tree`, `download_tree`, workspaces; checksums kept and compared; each object staged, renamed",
    ),
    "ours durable": Entrant(
        make=partial(programs.Ours, durable=True),
        distribution="micelio_storage",
        role="ours",
        durable=True,
        note="the default: as above, and what is stored is synced before it is acknowledged (what comes back is not)",
    ),
    "s5cmd": Entrant(
        make=programs.S5cmd, distribution=None, program="s5cmd", role="peer", note="`sync --size-only`; S3 alone"
    ),
    "rclone": Entrant(
        make=programs.Rclone, distribution=None, program="rclone", role="peer", note="`sync`; syncs nothing to a disk"
    ),
    "aws": Entrant(make=programs.Aws, distribution=None, program="aws", role="peer", note="`aws s3 sync`; S3 alone"),
    "restic": Entrant(
        make=programs.Restic,
        distribution=None,
        program="restic",
        role="peer",
        durable=None,
        note="encrypts and compresses as well; syncs what it stores on disk",
    ),
}


def version_of(entrant: Entrant) -> str | None:
    """The version that is installed, "" where none is needed, None where it is missing."""
    if entrant.program is not None:
        return programs.version_of_program(entrant.program)
    if entrant.distribution is None:
        return ""
    try:
        return metadata.version(entrant.distribution)
    except metadata.PackageNotFoundError:
        return None
