"""The public doors: what they export, what is documented, that wrappers forward all of the contract."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from importlib.metadata import distribution, version
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import micelio_storage
from micelio_storage import driver, http, sessions, sync, testing, transfer
from micelio_storage.driver import Driver
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.drivers.s3 import doctor
from micelio_storage.testing import soak
from micelio_storage.wrappers._forwarding import Forwarding
from micelio_storage.wrappers.prefixed import PrefixedDriver

DOORS = [micelio_storage, driver, http, sessions, sync, testing, soak, doctor, transfer]
MEMBERS = [name for name in vars(Driver) if not name.startswith("_")]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_door_exports_what_its_all_says_in_order(door: ModuleType) -> None:
    assert sorted(door.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == door.__all__
    for name in door.__all__:
        assert hasattr(door, name)
    public = {name for name, value in vars(door).items() if not name.startswith("_") and not inspect.ismodule(value)}
    imported_for_itself = {
        "TYPE_CHECKING",
        "annotations",
        "Protocol",
        "AsyncIterator",
        "Mapping",
        "Sequence",
    }
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


def attribute_docstrings() -> set[tuple[str, str]]:
    """The file, and `NAME` or `Class.name`, of each assignment that a string follows."""
    found = set()
    for path in Path(micelio_storage.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        bodies = [("", tree.body), *((f"{one.name}.", one.body) for one in tree.body if isinstance(one, ast.ClassDef))]
        for begin, body in bodies:
            for one, following in pairwise(body):
                target = one.targets[0] if isinstance(one, ast.Assign) else getattr(one, "target", None)
                is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if isinstance(target, ast.Name) and is_text:
                    found.add((str(path), begin + target.id))
    return found


DESCRIBED = attribute_docstrings()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_constant_alias_and_field_is_described(door: ModuleType) -> None:
    silent = []
    for name in door.__all__:
        value = getattr(door, name)
        if inspect.isclass(value):
            text = inspect.getdoc(value) or ""
            fields = [field for field in vars(value).get("__annotations__", {}) if not field.startswith("_")]
            file = inspect.getsourcefile(value)
            silent += [
                f"{name}.{field}"
                for field in fields
                if f"`{field}`" not in text and (file, f"{name}.{field}") not in DESCRIBED
            ]
        elif not inspect.isfunction(value) and name not in {described for _, described in DESCRIBED}:
            silent.append(name)
    assert silent == []


def test_every_public_name_has_its_place_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (Path(__file__).parent.parent / "docs" / "api").glob("*.md"))
    described = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, flags=re.MULTILINE))
    values = [getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in described]
    missing = [
        f"{door.__name__}.{name}"
        for door in DOORS
        for name in door.__all__
        if f"{door.__name__}.{name}" not in described and not any(getattr(door, name) is value for value in values)
    ]
    assert missing == []


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
    function = getattr(vars(Driver)[member], "fget", vars(Driver)[member])
    hints = typing.get_type_hints(function) if inspect.isfunction(function) else {}
    return any(re.search(r"\b(Key|Prefix|Page|Batches)\b", str(hint)) for hint in hints.values())


def test_what_takes_keys_is_found_out() -> None:
    found = {name for name in MEMBERS if takes_keys(name)}
    one_by_one = {"head", "read", "put", "upload", "copy", "move", "presign"}
    assert found == one_by_one | {"batches", "delete", "delete_prefix", "list_page"}


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
        "AsyncIterable",
        "AsyncIterator",
        "Awaitable",
        "BaseException",
        "Callable",
        "Coroutine",
        "Counter",
        "Exception",
        "Future",
        "Iterable",
        "Iterator",
        "Logger",
        "LogRecord",
        "Mapping",
        "None",
        "PathLike",
        "Self",
        "Sequence",
        "Generator",
        "T",
        "TracebackType",
        "Unpack",
        "asyncio",
        "bool",
        "bytes",
        "datetime",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "logging",
        "memoryview",
        "object",
        "os",
        "str",
        "timedelta",
        "tuple",
        "type",
    ]
)
# As ASGI calls them, the SDK's own session, and what type checkers call whatever has bytes.
OTHERS = frozenset(["ReadableBuffer", "Receive", "Scope", "Send", "aioboto3"])


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_all_names_in_public_signatures_and_fields_can_be_imported(door: ModuleType) -> None:
    known = (PYTHONS | OTHERS).union(*(each.__all__ for each in DOORS))
    unknown = {}
    for name in door.__all__:
        words = re.sub(r"Literal\[[^]]*\]", "", " ".join(annotations(getattr(door, name))))
        if missing := set(re.findall(r"[A-Za-z_]\w*", words)) - known:
            unknown[name] = missing
    assert unknown == {}


def annotations(value: object) -> Iterator[str]:
    """Those of a function, or of the public methods, properties and fields of a class."""
    members = [*vars(value).items()] if inspect.isclass(value) else [("", value)]
    for name, member in members:
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) and not name.startswith("_"):
            yield from map(str, function.__annotations__.values())
    if inspect.isclass(value):
        own = vars(value).get("__annotations__", {})
        for name, annotation in own.items():
            if not name.startswith("_"):
                yield str(getattr(annotation, "__forward_arg__", annotation))
