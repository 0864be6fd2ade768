"""What the S3 driver never takes more of: memory, and the event loop's time. Measured in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from faults.scale import scaled
from support import s3_servers
from support.s3_servers import Server

from micelio_storage import ConfigError, S3Config, open_storage
from micelio_storage.drivers.s3._multipart import MOST_PARTS, part_size, ranges

MIB = 1 << 20
TERABYTE = 1 << 40
SIZE = scaled(512, 2048)  # MiB
STATED = 8 * (4 + 1) + 16  # MiB: part_size x (concurrency + 1), and what the interpreter takes meanwhile


def measured(server: Server, what: str, *arguments: object) -> float:
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent),
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": server.region,
        "MALLOC_ARENA_MAX": "2",  # or threads that come and go keep memory that nobody uses
    }
    command = [sys.executable, "-m", "support.s3_measured", what, server.endpoint, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.case("R3")
def test_large_streams_in_and_out_take_no_more_memory_than_is_stated() -> None:
    with s3_servers.strict_process("--discard") as server:
        assert measured(server, "upload", SIZE) < STATED
        assert measured(server, "download", SIZE) < STATED


@pytest.mark.case("S33")
@pytest.mark.parametrize("smallest", [5 * MIB, 8 * MIB, 64 * MIB])
def test_parts_grow_so_that_the_largest_object_fits(smallest: int) -> None:
    sizes = [part_size(number, smallest) for number in range(1, MOST_PARTS + 1)]
    assert sizes[0] == smallest
    assert sizes == sorted(sizes)
    assert sum(sizes) >= 4.8 * TERABYTE
    assert next(size for size in sizes if size > smallest) == 2 * smallest


@pytest.mark.case("S33")
@pytest.mark.parametrize("size", [1, 5 * MIB, 5 * MIB + 1, 100 * MIB, 5 * TERABYTE])
def test_the_parts_of_a_copy_are_the_whole_object(size: int) -> None:
    parts = list(ranges(size, 5 * MIB))
    assert parts[0][0] == 0
    assert parts[-1][1] == size
    assert all(one[1] == other[0] for one, other in pairwise(parts))
    assert len(parts) <= MOST_PARTS


@pytest.mark.case("S33")
def test_a_part_of_less_than_five_mib_is_refused_before_any_request() -> None:
    with pytest.raises(ConfigError, match="part_size"):
        open_storage(S3Config(bucket="bucket", part_size=MIB))
