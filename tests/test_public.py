"""The public doors: what they export, what is documented, that wrappers forward all of the contract."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from importlib.metadata import distribution, version
from pathlib import Path
from types import ModuleType

import pytest

import micelio_storage
from micelio_storage import driver, http, sessions, testing, transfer
from micelio_storage.driver import Driver
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.wrappers._forwarding import Forwarding
from micelio_storage.wrappers.prefixed import PrefixedDriver

DOORS = [micelio_storage, driver, http, sessions, testing, transfer]
MEMBERS = [name for name in vars(Driver) if not name.startswith("_")]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_door_exports_what_its_all_says_in_order(door: ModuleType) -> None:
    assert sorted(door.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == door.__all__
    for name in door.__all__:
        assert hasattr(door, name)
    public = {name for name, value in vars(door).items() if not name.startswith("_") and not inspect.ismodule(value)}
    imported_for_itself = {"annotations", "Protocol", "AsyncIterator", "Mapping", "Sequence"}
    assert public - set(door.__all__) - imported_for_itself == set()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_everything_public_is_documented(door: ModuleType) -> None:
    silent = []
    for name in door.__all__:
        value = getattr(door, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not inspect.getdoc(value):
            silent.append(name)
        members = vars(value).items() if inspect.isclass(value) else ()
        for member, function in members:
            callable_or_property = inspect.isfunction(function) or isinstance(function, property)
            if callable_or_property and not member.startswith("_") and not inspect.getdoc(function):
                silent.append(f"{name}.{member}")
    assert silent == []


def test_the_version_is_the_installed_one() -> None:
    assert micelio_storage.__version__ == version("micelio_storage")
    with pytest.raises(AttributeError):
        _ = micelio_storage.nothing  # type: ignore[attr-defined]  # what is tested


def test_what_is_tested_is_what_is_installed() -> None:
    installed = distribution("micelio_storage")
    editable = '"editable": true' in (installed.read_text("direct_url.json") or "")
    expected = Path(__file__).parents[1] if editable else Path(str(installed.locate_file("")))
    assert Path(micelio_storage.__file__) == expected / "micelio_storage" / "__init__.py"


@pytest.mark.parametrize("kind", [LocalDriver, MemoryDriver, Forwarding])
def test_a_driver_has_every_member_of_the_contract_itself(kind: type) -> None:
    instance = kind("/nowhere") if kind is LocalDriver else None if kind is Forwarding else kind()
    own = set(vars(kind)) | set(vars(instance) if instance else ())
    assert set(MEMBERS) - own == set()


def takes_keys(member: str) -> bool:
    """Whether keys, or prefixes of keys, go into the member or come out of it."""
    function = vars(Driver)[member]
    hints = typing.get_type_hints(function) if inspect.isfunction(function) else {}
    return any(re.search(r"\b(Key|Prefix|Page)\b", str(hint)) for hint in hints.values())


def test_what_takes_keys_is_found_out() -> None:
    found = {name for name in MEMBERS if takes_keys(name)}
    assert found == {"head", "read", "put", "upload", "copy", "delete", "list_page", "presign"}


@pytest.mark.parametrize("wrapper", [PrefixedDriver])
def test_a_wrapper_that_changes_keys_overrides_every_member_that_takes_one(wrapper: type) -> None:
    assert issubclass(wrapper, Forwarding)
    assert {name for name in MEMBERS if takes_keys(name)} - set(vars(wrapper)) == set()


def test_every_driver_is_importable_alone() -> None:
    for name in ("drivers.local", "drivers.memory", "wrappers.prefixed"):
        importlib.import_module(f"micelio_storage.{name}")


# What a signature may say besides: Python's own, and what has no other use than to be passed on.
PYTHONS = frozenset(
    [
        "AbstractContextManager",
        "Any",
        "AsyncGenerator",
        "AsyncIterator",
        "Awaitable",
        "BaseException",
        "Callable",
        "GET",
        "Iterator",
        "Literal",
        "Logger",
        "Mapping",
        "None",
        "PUT",
        "PathLike",
        "Self",
        "Sequence",
        "TracebackType",
        "Unpack",
        "bool",
        "bytes",
        "dict",
        "float",
        "int",
        "list",
        "logging",
        "object",
        "os",
        "str",
        "timedelta",
        "tuple",
        "type",
    ]
)


def test_all_names_in_the_signatures_of_applications_can_be_imported() -> None:
    unknown = {}
    for name in micelio_storage.__all__:
        value = getattr(micelio_storage, name)
        functions = [value] if inspect.isfunction(value) else [*vars(value).values()] if inspect.isclass(value) else []
        for function in functions:
            if not inspect.isfunction(function) or function.__name__.startswith("_"):
                continue
            words = set(re.findall(r"[A-Za-z_]\w*", " ".join(map(str, function.__annotations__.values()))))
            if missing := words - PYTHONS - {*micelio_storage.__all__, *driver.__all__}:
                unknown[f"{name}.{function.__name__}"] = missing
    assert unknown == {}
