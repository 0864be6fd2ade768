"""What a figure depends on: versions, the machine, the file system."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from . import servers, venues

LIBRARIES = ("micelio_storage", "aiofiles", "awscrt", "aiohttp", "aiobotocore", "botocore", "matplotlib")


def describe() -> dict[str, str]:
    """The machine and what of it matters, as text."""
    there = {name: version for name in LIBRARIES if (version := _version(name))}
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "processors": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "file systems": ", ".join(f"{venue}: {_file_system(path)}" for venue, path in venues.directories().items()),
        "servers": ", ".join(_servers()) or "none",
        "libraries": ", ".join(f"{name} {version}" for name, version in there.items()),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(path: Path) -> str:
    """The type of the mount that the path is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    resolved = path.resolve()
    kinds: Mapping[Path, str] = {Path(point): kind for point, kind in mounts}
    return next((kinds[at] for at in (resolved, *resolved.parents) if at in kinds), "unknown")


def _servers() -> Sequence[str]:
    found = []
    if servers.nginx_binary():
        found.append(
            subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr.split(":")[-1].strip()
        )
    if weed := servers.seaweedfs_binary():
        words = subprocess.run([weed, "version"], capture_output=True, text=True, check=False).stdout.split()
        found.append(f"SeaweedFS {words[2] if len(words) > 2 else '?'}")
    return found
