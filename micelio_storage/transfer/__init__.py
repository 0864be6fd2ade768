"""Much at once, from one place to another: moving a storage, and reading all of one to see that it is whole."""

from __future__ import annotations

from ._archive_rules import ArchiveError, ArchiveFault
from ._archive_sources import ArchiveSource, StoredArchive
from ._archives import Archive, ArchiveKind, ArchiveReader, archive
from ._everything import everything
from ._import import Imported, import_archive
from ._migrate import copy_below, migrate
from ._outcomes import CONCURRENCY, MOST_CONCURRENCY, CopyResult, OnOutcome, Outcome, Report
from ._tree_outcomes import TreeOutcome, TreeReport, TreeResult
from ._trees import download_tree, upload_tree
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
