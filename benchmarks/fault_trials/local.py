"""Trials on a disk, and what is said about them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from .asking import ask
from .disks import Disk, small_memory, why_no_mounts
from .steps import Answer
from .trials import Scale, Trial, Verdict, counted

NO_ROOM = "3m"


def trials(scale: Scale, directory: Path) -> list[Trial]:
    """All of them; images of disks are made in the directory."""
    disk = cache(partial(Disk, directory))
    return [
        *(_power_cut(disk, *cut) for cut in scale.cuts),
        Trial(title=f"`kill -9`, {scale.kills} times, while 4 MiB are overwritten", run=partial(_kills, scale.kills)),
        Trial(title="reads while 4 MiB are overwritten", run=partial(_torn_reads, scale.read_seconds)),
        Trial(title="disk full while overwriting", run=_full_disk, obstacle=why_no_mounts()),
        Trial(title="streamed put cancelled", run=partial(_cancelled, scale.cancelled)),
        Trial(title="link below the root that leads out of it", run=_link),
        Trial(title="named pipe below the root, read", run=_pipe),
    ]


def _power_cut(disk: Any, kind: str, overwrite: bool, other_sync: bool) -> Trial:
    what = "20 overwrites" if overwrite else "20 new objects"
    when = "another file synced" if other_sync else "at once"

    def run(library: str) -> Verdict:
        with disk(kind).mounted() as place:
            root = Disk.new_root(place)
            ask("write_and_cut", library, root=str(root), overwrite=overwrite, other_sync=other_sync)
        with disk(kind).mounted():
            found = ask("look_after_cut", library, root=str(root))
        return Verdict(cell=_lost(found), figures=found)

    title = f"power cut, {kind}: {what}, {when}"
    return Trial(title=title, run=run, obstacle=why_no_mounts(f"mkfs.{kind}"))


def _lost(found: Answer) -> str:
    lost = {state: count for state, count in found.items() if state != "new"}
    total, count = sum(found.values()), sum(lost.values())
    if not lost:
        return f"0 of {total} lost"
    if len(lost) == 1:
        return f"{count} of {total} lost ({next(iter(lost))})"
    return f"{count} of {total} lost ({', '.join(f'{each} {state}' for state, each in sorted(lost.items()))})"


def _kills(times: int, library: str) -> Verdict:
    with _root() as root:
        answer = ask("kill_often", library, root=str(root), times=times)
    left = counted(len(answer["left"]), "file") + " left" if answer["left"] else "nothing left"
    return Verdict(cell=f"{_broken(answer['states'])}, {left}", figures=answer)


def _torn_reads(seconds: float, library: str) -> Verdict:
    with _root() as root:
        answer = ask("read_while_written", library, root=str(root), seconds=seconds)
    return Verdict(cell=_broken(answer), figures=answer)


def _broken(states: Answer) -> str:
    total = sum(states.values())
    parts = [f"{states[state]:,} {state}" for state in ("torn", "empty") if states.get(state)]
    errors = {name: count for name, count in states.items() if name not in ("whole", "torn", "empty")}
    parts += [f"{count:,} {name}" for name, count in errors.items()]
    return f"{', '.join(parts)} of {total:,}" if parts else f"all {total:,} whole"


def _full_disk(library: str) -> Verdict:
    with small_memory(NO_ROOM) as place:
        root = place / "root"
        root.mkdir()
        answer = ask("overwrite_on_full_disk", library, root=str(root))
    left = sum(answer["left"].values())
    rest = f", {left / (1 << 20):.1f} MiB left over" if answer["left"] else ""
    if not answer["error"]:
        return Verdict(cell="no error" + rest, figures=answer)
    return Verdict(cell=f"old object {'intact' if answer['intact'] else 'destroyed'}{rest}", figures=answer)


def _cancelled(times: int, library: str) -> Verdict:
    with _root() as root:
        answer = ask("cancel_streams", library, root=str(root), times=times)
    left = len(answer["left"])
    return Verdict(cell=after_cancelling(answer, [counted(left, "temporary file")] if left else []), figures=answer)


def after_cancelling(answer: Answer, left: list[str]) -> str:
    """What is said of cancelled writes, wherever they went; `left`: what they left there."""
    cancelled = answer["outcomes"].get("cancelled", 0)
    bad = [f"{count} {name}" for name, count in answer["outcomes"].items() if name not in ("cancelled", "done")]
    if answer["destroyed"]:
        bad.append(counted(answer["destroyed"], "truncated object"))
    if answer["later"]:
        bad.append(f"{answer['later']} written later")
    bad += left
    if answer["tasks"]:
        bad.append(counted(answer["tasks"], "task") + " left")
    if answer["threads"]:
        bad.append(counted(answer["threads"], "thread") + " at work")
    return f"{cancelled} cancelled: {', '.join(bad) or 'clean'}"


def _link(library: str) -> Verdict:
    with _root() as root:
        answer = ask("follow_link", library, root=str(root))
    done = [word for word, happened in (("reads", answer["read"]), ("writes", answer["written"])) if happened]
    if done:
        return Verdict(cell=f"followed: {' and '.join(done)}", figures=answer)
    return Verdict(cell=f"refused ({answer['errors'].get('read', 'no error')})", figures=answer)


def _pipe(library: str) -> Verdict:
    with _root() as root:
        answer = ask("read_pipe", library, root=str(root))
    words = {"hung": "hangs", "read": "read"}
    return Verdict(cell=words.get(answer["outcome"], f"refused ({answer['outcome']})"), figures=answer)


@contextmanager
def _root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="micelio-faults-") as directory:
        root = Path(directory) / "root"
        root.mkdir()
        yield root
