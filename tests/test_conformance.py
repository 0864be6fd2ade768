"""Every driver, in every way it can be set up, keeps every promise of the kit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from micelio_storage.driver import (
    Capabilities,
    DeleteOptions,
    Driver,
    Key,
    NotSupportedError,
    ObjectInfo,
    Prefix,
    PresignRequest,
    StorageError,
    WriteOptions,
)
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.drivers.prefixed import PrefixedDriver
from micelio_storage.testing import CHECKS, Check, run


class ModestDriver(MemoryDriver):
    """Denies all that a driver may deny, so that the kit's other answers are asked for as well."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(
            if_absent=False,
            if_match=False,
            delete_if_match=False,
            metadata=False,
            nested_keys=False,
            fresh_etags=False,
        )

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        if options.condition is not None or options.metadata:
            raise NotSupportedError("neither conditions nor metadata")
        info = replace(super().publish(key, data, options), etag=f'"{hashlib.sha256(data).hexdigest()}"')
        self._objects[key] = replace(self._objects[key], info=info)
        return info

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        if options.if_match is not None:
            raise NotSupportedError("no conditional deletes")
        return await super().delete(keys, options)


class SigningDriver(MemoryDriver):
    """Has URLs, which lead nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(signed_urls=True)

    async def presign(self, key: Key, request: PresignRequest) -> str:
        return f"https://storage.invalid/{quote(key)}?method={request.method}&expires={request.expires}"


# Each is given a directory in memory and one on disk.
DRIVERS: Mapping[str, Callable[[Path, Path], Driver]] = {
    "memory": lambda tmpfs, disk: MemoryDriver(),
    "memory-flat": lambda tmpfs, disk: MemoryDriver(nested_keys=False),
    "memory-modest": lambda tmpfs, disk: ModestDriver(),
    "memory-signing": lambda tmpfs, disk: SigningDriver(),
    "memory-prefixed": lambda tmpfs, disk: PrefixedDriver(MemoryDriver(), Prefix.parse("tenants/\u00e9 1/")),
    "local": lambda tmpfs, disk: LocalDriver(tmpfs / "root"),
    "local-walk": lambda tmpfs, disk: LocalDriver(tmpfs / "root", resolver="walk"),
    "local-file": lambda tmpfs, disk: LocalDriver(tmpfs / "root", keeping="file"),
    "local-scratch": lambda tmpfs, disk: LocalDriver(tmpfs / "root", durable=False),
    "local-disk": lambda tmpfs, disk: LocalDriver(disk / "root"),
    "local-prefixed": lambda tmpfs, disk: PrefixedDriver(
        LocalDriver(tmpfs / "root"), Prefix.parse("tenants/\u00e9 1/")
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make_driver", DRIVERS.values(), ids=DRIVERS)
async def test_driver_keeps_the_contract(
    make_driver: Callable[[Path, Path], Driver], check: Check, tmpfs: Path, tmp_path: Path
) -> None:
    await run(check, make_driver(tmpfs, tmp_path))
