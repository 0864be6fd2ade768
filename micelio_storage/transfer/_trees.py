"""Directories in and out: a file an object, only what differs, and never through a link."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from .._directories import check_limits, entered, ignoring
from .._files import OnProgress
from .._storage import Storage
from .._turns import in_thread
from ._outcomes import CONCURRENCY
from ._tree_contents import Contents
from ._tree_download import TreeDownload
from ._tree_outcomes import TreeReport
from ._tree_upload import TreeUpload

MOST_FILES = 1_000_000


async def upload_tree(
    path: str | os.PathLike[str],
    storage: Storage,
    *,
    ignore: Sequence[str] = (),
    delete: bool = False,
    by_content: bool = False,
    concurrency: int = CONCURRENCY,
    max_files: int = MOST_FILES,
    max_bytes: int | None = None,
    on_progress: OnProgress | None = None,
    dry_run: bool = False,
) -> TreeReport:
    """Store the files beneath a directory, each as an object of its own: those that are not there yet as they are.

    A file is known again by its size, its time of modification and whether it can be executed, which are kept in the
    object's metadata. Links, devices, names that are not keys, and what cannot be read are in the report, and left.
    With `by_content`, its bytes decide, whatever its times: where an object's ETag is the MD5 of its bytes (on S3, what
    was written in one request and is not encrypted with KMS), the file is read, and no object is asked about; other
    objects are compared as without it, and storages that have no such ETags are a `NotSupportedError`.
    `ignore` has patterns as in .gitignore (extra `trees`). With `delete`, objects without a file are removed, if nobody
    has written them since they were listed. More than `max_files` or `max_bytes` is an `InvalidArgumentError`
    before anything is stored. `on_progress` gets the bytes of files that are done, and of all.
    """
    contents = Contents(storage) if by_content else None
    upload = TreeUpload(storage, ignoring(ignore), concurrency, on_progress, TreeReport(dry_run=dry_run), contents)
    async with entered(path) as beneath:
        limits = partial(check_limits, max_files=max_files, max_bytes=max_bytes)
        await upload.run(beneath, limits, delete=delete)
    return upload.report


async def download_tree(
    storage: Storage,
    path: str | os.PathLike[str],
    *,
    ignore: Sequence[str] = (),
    delete: bool = False,
    by_content: bool = False,
    concurrency: int = CONCURRENCY,
    max_files: int = MOST_FILES,
    max_bytes: int | None = None,
    on_progress: OnProgress | None = None,
    dry_run: bool = False,
) -> TreeReport:
    """Write the objects of a storage to a directory, which is made: those that are not there yet as they are.

    Each file appears whole, with the time and the permission to be executed that `upload_tree` kept, or the object's
    time. Nothing is written through a link or onto what is no file: that is in the report. With `delete`, files without
    an object are removed, but for those that are ignored. The other arguments are `upload_tree`'s.
    """
    contents = Contents(storage) if by_content else None
    download = TreeDownload(storage, ignoring(ignore), concurrency, on_progress, TreeReport(dry_run=dry_run), contents)
    limits = partial(check_limits, max_files=max_files, max_bytes=max_bytes)
    if dry_run and not await in_thread(partial(os.path.lexists, path)):
        await download.run(None, limits, delete=delete)
        return download.report
    async with entered(path, make=not dry_run) as beneath:
        await download.run(beneath, limits, delete=delete)
    return download.report
