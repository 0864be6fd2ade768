"""Much at once, from one place to another: moving a storage, and reading all of one to see that it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _later
from ._outcomes import CONCURRENCY, MOST_CONCURRENCY, CopyResult, OnOutcome, Outcome, Report
from ._tree_outcomes import TreeOutcome, TreeReport, TreeResult
from ._trees import download_tree, upload_tree

if TYPE_CHECKING:  # imported when somebody asks for them: who moves a directory needs neither archives nor anyio
    from ._archive_rules import ArchiveError, ArchiveFault
    from ._archive_sources import ArchiveSource, StoredArchive
    from ._archives import Archive, ArchiveKind, ArchiveReader, archive
    from ._everything import everything
    from ._import import Imported, import_archive
    from ._migrate import copy_below, migrate
    from ._verify import Finding, Tally, VerifyResult, verify

__all__ = [
    "CONCURRENCY",
    "MOST_CONCURRENCY",
    "Archive",
    "ArchiveError",
    "ArchiveFault",
    "ArchiveKind",
    "ArchiveReader",
    "ArchiveSource",
    "CopyResult",
    "Finding",
    "Imported",
    "OnOutcome",
    "Outcome",
    "Report",
    "StoredArchive",
    "Tally",
    "TreeOutcome",
    "TreeReport",
    "TreeResult",
    "VerifyResult",
    "archive",
    "copy_below",
    "download_tree",
    "everything",
    "import_archive",
    "migrate",
    "upload_tree",
    "verify",
]

_PLACES = {
    "_archive_rules": ("ArchiveError", "ArchiveFault"),
    "_archive_sources": ("ArchiveSource", "StoredArchive"),
    "_archives": ("Archive", "ArchiveKind", "ArchiveReader", "archive"),
    "_everything": ("everything",),
    "_import": ("Imported", "import_archive"),
    "_migrate": ("copy_below", "migrate"),
    "_verify": ("Finding", "Tally", "VerifyResult", "verify"),
}


def __getattr__(name: str) -> object:
    return _later.imported(globals(), _PLACES, name)
