"""What a Python file says of itself: purpose, functions and classes, imports. By its syntax tree; nothing is run."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

_DEFINED = re.compile(rb"^(?:async[ \t]+)?(def|class)[ \t]+(\w+)", re.MULTILINE)
_IMPORTED = re.compile(
    rb"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)[\w.]*[ \t]+import\b|import[ \t]+([A-Za-z_]\w*))", re.MULTILINE
)

_DOCSTRING = re.compile(rb'(?:[ \t]*(?:#[^\n]*)?\n)*[rRuU]?("""|\'\'\')(.*?)\1', re.DOTALL)
_GLANCED = 20_000

_PARSED = 1 << 18
"""Bytes: the tree of a larger file, which is most likely generated, would take seconds."""

_LOOP = ("body", "orelse")
_TRY = ("body", "handlers", "orelse", "finalbody")
_BODIES: dict[type, tuple[str, ...]] = {
    **dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.With, ast.AsyncWith), ("body",)),
    **dict.fromkeys((ast.ExceptHandler, ast.match_case), ("body",)),
    **dict.fromkeys((ast.If, ast.For, ast.AsyncFor, ast.While), _LOOP),
    **{ast.Try: _TRY, ast.TryStar: _TRY, ast.Match: ("cases",)},
}
"""Where a statement keeps statements."""


@dataclass(slots=True)
class PythonSource:
    """`names` are the functions and classes of the file's own level, in its order, such as `load()` and
    `class Probe`; `imported` the first parts of what it imports, anywhere in it; relative imports are left out."""

    purpose: str | None = None
    names: list[str] = field(default_factory=list)
    imported: set[str] = field(default_factory=set)
    trouble: str | None = None


def python_source(content: bytes) -> PythonSource:
    """Read a file. One that is no Python 3 has a `trouble`, and what its lines give away at a glance; so has
    one that is too large."""
    if len(content) > _PARSED:
        return _glanced(content, f"over {_PARSED:,} bytes, so that it was only glanced at")
    try:
        with warnings.catch_warnings():  # an odd escape sequence is the file's business
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except SyntaxError as error:
        line = f" in line {error.lineno}" if error.lineno else ""
        return _glanced(content, f"syntax error{line}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return _glanced(content, f"cannot be parsed: {error or type(error).__name__}")
    try:
        docstring = ast.get_docstring(tree)
    except ValueError:
        docstring = None
    names = [name for node in tree.body for name in _named(node)]
    return PythonSource(docstring, names, set(_imports(tree.body)))


def _named(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        yield f"class {node.name}"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield f"{node.name}()"


def _imports(body: Iterable[ast.AST]) -> Iterator[str]:
    """Of all statements, those in functions too: an import that waits is an import."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level and node.module:
                yield node.module.partition(".")[0]
        else:
            for name in _BODIES.get(type(node), ()):
                waiting += getattr(node, name)


def _glanced(content: bytes, trouble: str) -> PythonSource:
    kinds = {b"class": "class {}", b"def": "{}()"}
    names = [kinds[kind].format(name.decode(errors="replace")) for kind, name in _DEFINED.findall(content)]
    imported = {(whole or part).decode(errors="replace") for whole, part in _IMPORTED.findall(content)}
    docstring = _DOCSTRING.match(content[:_GLANCED])
    purpose = docstring[2].decode(errors="replace") if docstring else None
    return PythonSource(purpose, names, imported, trouble)


class Modules:
    """The modules of a tree, so that an import of one of them is told from one of a package."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._in: dict[str, set[str]] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            stem = name.rpartition(".")[0]
            self._in.setdefault(folder, set()).add(stem)
            while folder:
                above, _, name = folder.rpartition("/")
                known = self._in.setdefault(above, set())
                if name in known:
                    break
                known.add(name)
                folder = above

    def sorted_out(self, path: str, imported: Collection[str]) -> dict[str, list[str]]:
        """The imports of a file as `packages`, `standard` library and `local` modules, each in order.

        Local is what lies beside the file, in a folder above it, or in `src` or `lib`.
        """
        found: dict[str, list[str]] = {"packages": [], "standard": [], "local": []}
        beside = [self._in.get(folder, set()) for folder in ("src", "lib", *_above(path))]
        for name in sorted(imported):
            if name == "__future__":
                continue
            if any(name in known for known in beside):
                found["local"].append(name)
            else:
                found["standard" if name in sys.stdlib_module_names else "packages"].append(name)
        return found


def _above(path: str) -> Iterator[str]:
    folder = path
    while folder:
        folder = folder.rpartition("/")[0]
        yield folder
