"""The highest that a process was resident. Linux keeps it (VmHWM) and forgets it when asked (`man 5 proc`, clear_refs,
since 4.0). What is in the page cache, tmpfs included, is not the process's."""

from __future__ import annotations

from pathlib import Path


def forget_peak() -> None:
    """Begin anew with what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def highest() -> int:
    """KiB that were resident at the worst moment since the peak was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
