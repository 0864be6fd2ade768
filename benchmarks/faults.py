"""What becomes of objects when something breaks: the same trials for us and for those who do the same work.

`python -m benchmarks.faults` from the project's root prints a table for disks and one for S3. As root on Linux all of
it is run; a trial for which something is missing says what, and is not run. Who takes part is who is installed
(`pip install '.[s3,bench]'` brings all). Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .fault_trials import local, s3
from .fault_trials.asking import StepError
from .fault_trials.libraries import LOCAL, Entrant
from .fault_trials.libraries_s3 import S3_LIBRARIES
from .fault_trials.trials import QUICK, Record, Scale, Trial

NOT_RUN = "not run"


def main() -> None:
    options = _parser().parse_args()
    scale = QUICK if options.quick else Scale()
    start = time.monotonic()
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    print(f"{system}, Python {platform.python_version()}", flush=True)
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="micelio-faults-") as directory:
        records += _place("On a disk", local.trials(scale, Path(directory)), LOCAL, options)
    with s3.running() as store:
        records += _place("On S3 (SeaweedFS)", s3.trials(scale, store), S3_LIBRARIES, options)
    print(f"{time.monotonic() - start:.0f} seconds", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps([record.as_json() for record in records], indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description="Nothing here passes or fails.")
    parser.add_argument("--quick", action="store_true", help="fewer trials, and each less often")
    parser.add_argument("--only", metavar="TEXT", help="trials with this in their title")
    parser.add_argument("--library", action="append", metavar="NAME", help="these libraries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser


def _place(
    title: str, trials: Sequence[Trial], entrants: Mapping[str, Entrant], options: argparse.Namespace
) -> list[Record]:
    """Run the trials and print their table."""
    chosen = {name: entrant for name, entrant in entrants.items() if not options.library or name in options.library}
    versions = {name: version for name, entrant in chosen.items() if (version := entrant.version())}
    rows = [trial for trial in trials if not options.only or options.only in trial.title]
    records = [_tried(title, trial, library, version) for trial in rows for library, version in versions.items()]
    if records:
        print(f"\n## {title}\n\n{table(records)}")
        if missing := [name for name in chosen if name not in versions]:
            print(f"\nNot installed: {', '.join(missing)}.")
        sys.stdout.flush()
    return records


def _tried(place: str, trial: Trial, library: str, version: str) -> Record:
    """One cell; a library that crashes or hangs gets that as its cell."""
    cell, figures = f"{NOT_RUN}: {trial.obstacle}", {}
    if trial.obstacle is None:
        try:
            verdict = trial.run(library)
            cell, figures = verdict.cell, dict(verdict.figures)
        except StepError as error:
            cell = str(error)
    print(f"{trial.title} | {library} | {cell}", file=sys.stderr, flush=True)
    return Record(place=place, trial=trial.title, library=library, version=version, cell=cell, figures=figures)


def table(records: Sequence[Record]) -> str:
    """Trials as rows, libraries as columns, in Markdown."""
    columns = {record.library: record.version for record in records}
    cells = {(record.trial, record.library): record.cell for record in records}
    titles = dict.fromkeys(record.trial for record in records)
    lines = [
        ["", *(f"{library} {version}" for library, version in columns.items())],
        ["---"] * (len(columns) + 1),
        *([trial, *(cells[trial, library] for library in columns)] for trial in titles),
    ]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()
