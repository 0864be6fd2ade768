"""Downloads by programs that people have: cut again and again, they go on, and what comes is what was stored."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from array import array
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from faults.scale import scaled
from pyarrow import parquet
from support.left_out import command
from support.web_servers import anybody, uvicorn_of

from micelio_storage import Storage
from micelio_storage.http import StorageApp
from web.test_servers import Cutting

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

MIB = 1 << 20
CUTS = scaled(6, 20)
TESTS = Path(__file__).parents[2]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.case("H4")
async def test_aria2_with_eight_connections_goes_on(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(12 * MIB)
    await storage.put("large", data)
    app = Cutting(StorageApp(storage, authorize=anybody), CUTS, 300_000)
    async with uvicorn_of(app) as port:
        options = ["-x8", "-s8", "-k1M", "-m0", "--retry-wait=0", "--no-conf", "-q", "--allow-overwrite=true"]
        child = await asyncio.create_subprocess_exec(
            command("aria2c"), *options, "-d", str(tmp_path), "-o", "large", f"http://127.0.0.1:{port}/large"
        )
        assert await child.wait() == 0
    assert app.left == 0
    assert digest((tmp_path / "large").read_bytes()) == digest(data)


async def by_fsspec(what: str, url: str) -> bytes:
    """What `support.web_fsspec` prints; in a process of its own, as what fsspec leaves open is not ours."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.web_fsspec", what, url, cwd=TESTS, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    assert child.returncode == 0
    return out


@pytest.mark.case("H4")
async def test_fsspec_goes_on(storage: Storage) -> None:
    data = os.urandom(8 * MIB)
    await storage.put("large", data)
    app = Cutting(StorageApp(storage, authorize=anybody), CUTS, 300_000)
    async with uvicorn_of(app) as port:
        found = await by_fsspec("whole", f"http://127.0.0.1:{port}/large")
    assert app.left == 0
    assert digest(found) == digest(data)


@pytest.mark.case("H4")
async def test_a_parquet_file_is_read_by_its_parts(storage: Storage) -> None:
    """Its footer and the column that is wanted, and no more: a fraction of its bytes."""
    table = pyarrow.table({name: pyarrow.array(array("q", os.urandom(8 * 200_000)).tolist()) for name in "abcd"})
    made = pyarrow.BufferOutputStream()
    parquet.write_table(table, made, row_group_size=20_000, compression="none", use_dictionary=False)
    data = made.getvalue().to_pybytes()
    await storage.put("table.parquet", data)
    sent, app = 0, Cutting(StorageApp(storage, authorize=anybody), CUTS, 20_000)

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            nonlocal sent
            await send(message)
            sent += len(message.get("body", b""))

        await app(scope, receive, noting)

    async with uvicorn_of(counting) as port:
        found = await by_fsspec("column", f"http://127.0.0.1:{port}/table.parquet")
    assert app.left == 0
    assert digest(found) == digest(table.column("b").combine_chunks().to_numpy().tobytes())
    assert sent < len(data) * 3 // 4
