"""Every driver, in every way it can be set up, keeps every promise of the kit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from support.everything import EVERYTHING

from micelio_storage.driver import (
    Capabilities,
    DeleteOptions,
    Driver,
    Key,
    NotSupportedError,
    ObjectInfo,
    Prefix,
    PresignRequest,
    SignedUrl,
    StorageError,
    WriteOptions,
)
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.testing import CHECKS, Check, run
from micelio_storage.wrappers.prefixed import PrefixedDriver
from micelio_storage.wrappers.signing import SigningDriver, UrlSigner


class ModestDriver(MemoryDriver):
    """Denies all that a driver may deny, so that the kit's other answers are asked for as well."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(
            if_absent=False,
            if_match=False,
            if_match_streams=False,
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


class LinkingDriver(MemoryDriver):
    """Has URLs, which lead nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(signed_urls=True)

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        return SignedUrl(f"https://storage.invalid/{quote(key)}?method={request.method}&expires={request.expires}")


# Each is given a fresh directory: in memory, but for the one that says disk.
DRIVERS: Mapping[str, Callable[[Path], Driver]] = {
    "memory": lambda place: MemoryDriver(),
    "memory-named": lambda place: MemoryDriver(memory=place.name),
    "memory-flat": lambda place: MemoryDriver(nested_keys=False),
    "memory-modest": lambda place: ModestDriver(),
    "memory-signing": lambda place: LinkingDriver(),
    "memory-signed": lambda place: SigningDriver(MemoryDriver(), "https://files.example.org/x/", UrlSigner("k" * 32)),
    "memory-prefixed": lambda place: PrefixedDriver(MemoryDriver(), Prefix.parse("tenants/\u00e9 1/")),
    "local": lambda place: LocalDriver(place / "root"),
    "local-walk": lambda place: LocalDriver(place / "root", resolver="walk"),
    "local-file": lambda place: LocalDriver(place / "root", keeping="file"),
    "local-scratch": lambda place: LocalDriver(place / "root", durable=False),
    "local-disk": lambda place: LocalDriver(place / "root"),
    "local-prefixed": lambda place: PrefixedDriver(LocalDriver(place / "root"), Prefix.parse("tenants/\u00e9 1/")),
}
# These run all of the library's code that has to do with the loop, but for that of S3.
PLAIN = ("memory", "local")
every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Driver:
    place = request.getfixturevalue("tmp_path" if request.param == "local-disk" else "tmpfs")
    return DRIVERS[request.param](place)


@pytest.mark.case("O68")
@pytest.mark.asyncio(loop_factories=["asyncio"])
@every_check
@pytest.mark.parametrize("driver", PLAIN, indirect=True)
async def test_driver_keeps_the_contract(driver: Driver, check: Check) -> None:
    await run(check, driver)


@pytest.mark.by_turns(8)
@pytest.mark.asyncio(loop_factories=["asyncio"])
@every_check
@pytest.mark.parametrize("driver", [name for name in DRIVERS if name not in PLAIN], indirect=True)
async def test_driver_set_up_otherwise_keeps_the_contract(driver: Driver, check: Check) -> None:
    await run(check, driver)


@pytest.mark.case("O68", "O72")
@pytest.mark.by_turns
@pytest.mark.asyncio(loop_factories=["debug", "uvloop"])
@every_check
@pytest.mark.parametrize("driver", DRIVERS if EVERYTHING else PLAIN, indirect=True)
async def test_driver_keeps_the_contract_on_other_loops(driver: Driver, check: Check) -> None:
    await run(check, driver)
