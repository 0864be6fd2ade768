"""How the site is built: `python -m sphinx -W -n docs build/docs`. Nothing is fetched while it is."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from importlib.metadata import version as installed
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import micelio_storage

project = "micelio_storage"
version = release = installed("micelio_storage")
project_copyright = "the micelio_storage authors"
html_title = f"micelio_storage {version}"
html_theme = "furo"
html_static_path: list[str] = []
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [
    # Python's own, and those of what the library builds on: links to them would need inventories from the network.
    (r"py:.*", r"(collections|contextlib|datetime|logging|os|asyncio|typing|types|enum|pathlib|dataclasses)\..*"),
    (r"py:.*", r"(aioboto3|starlette|aiohttp|litestar)\..*"),
    # The same, where annotations name them in short or by a private module.
    (r"py:.*", r"_asyncio\.Future|timedelta|Request|BackgroundTask|micelio_storage\.http\.litestar\.Connection"),
    # Where a configuration comes from, which only its errors say.
    (r"py:.*", r"micelio_storage\._config\.Origin"),
    # What a response holds, which `of` makes.
    (r"py:.*", r"micelio_storage\.http\.asgi\.AsgiAnswer"),
    # The arguments of readers and writers, which a storage makes and applications do not.
    (r"py:.*", r"micelio_storage\._call\.(Call|Lifecycle)"),
    # What a file object is made from, which a storage does; and type checkers' name of whatever has bytes.
    (r"py:.*", r"micelio_storage\.sync\.(_engine\.Engine|_streams\.Open)|ReadableBuffer"),
    # What an archive is made from, inside.
    (r"py:.*", r"micelio_storage\.transfer\._archives\._(Objects?|Piece)"),
    # What a snapshot is made from, which a session does.
    (r"py:.*", r"micelio_storage\.sessions\._snapshots\.(_records\.Record|_last_tree\.LastTree)"),
    (r"py:.*", r"micelio_storage\._shielding\.T"),  # a type variable
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_mock_imports = ["aiohttp", "litestar", "starlette"]  # a page about their adapters needs none of them installed

DOORS = (
    "micelio_storage",
    "micelio_storage.driver",
    "micelio_storage.http",
    "micelio_storage.sessions",
    "micelio_storage.sync",
    "micelio_storage.testing",
    "micelio_storage.testing.soak",
    "micelio_storage.transfer",
    "micelio_storage.drivers.s3.doctor",
)


def public_names() -> dict[str, list[str]]:
    """The full names under which a public name may be described, by its last part."""
    names: dict[str, list[str]] = {}
    for door in DOORS:
        for name in import_module(door).__all__:
            names.setdefault(name, []).append(f"{door}.{name}")
    return names


def described() -> dict[str, list[str]]:
    """The text behind each assignment: autodoc finds none where a constant or alias is imported from elsewhere."""
    texts: dict[str, list[str]] = {}
    for path in Path(micelio_storage.__file__).parent.rglob("*.py"):
        for one, text in pairwise(ast.parse(path.read_text()).body):
            target = one.targets[0] if isinstance(one, ast.Assign) else getattr(one, "target", None)
            if isinstance(target, ast.Name) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts.setdefault(target.id, str(text.value.value).splitlines())
    return texts


# `diagnose` names a type of the SDK, which is imported for type checkers alone.
_session = type("Session", (), {"__module__": "aioboto3"})
vars(import_module("micelio_storage.drivers.s3.doctor._examination")).setdefault(
    "aioboto3", SimpleNamespace(Session=_session)
)
PUBLIC, DESCRIBED = public_names(), described()


def as_rest(_app: Any, what: str, name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are Markdown, for people read them in editors; autodoc wants reStructuredText."""
    if what in ("data", "type"):
        lines[:] = DESCRIBED.get(name.rpartition(".")[2], lines)
    text = re.sub(r"```python\n(.*?)\n\s*```", _as_block, "\n".join(lines), flags=re.DOTALL)
    if "code-block" not in text:
        text = _literals(text)
    lines[:] = [*text.split("\n"), ""]


def _as_block(match: re.Match[str]) -> str:
    code = "\n".join(f"    {line}" for line in match[1].split("\n"))
    return f".. code-block:: python\n\n{code}\n"


def _literals(text: str) -> str:
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text).replace("/*", "/\\*")


def link_to_the_door(app: Any, env: Any, node: Any, content: Any) -> Any:
    """A type is known by the module that it is in; its page is that of the door through which it is imported."""
    if node.get("refdomain") != "py":
        return None
    module, _, name = node["reftarget"].rpartition(".")
    domain = env.get_domain("py")
    targets = [target for target in PUBLIC.get(name, []) if target in domain.objects and target != node["reftarget"]]
    if not targets:
        return None
    near = [target for target in targets if module.startswith(target.rpartition(".")[0])]
    target = max(near or targets[:1], key=len)
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_rest)
    app.connect("missing-reference", link_to_the_door)
