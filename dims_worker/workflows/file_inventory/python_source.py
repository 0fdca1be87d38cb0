"""Find the purpose, functions, classes and imports of a Python file in its syntax tree. Nothing is run."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

_DEFINED = re.compile(rb"^(?:async[ \t]+)?(def|class)[ \t]+(\w+)", re.MULTILINE)
_IMPORTED = re.compile(
    rb"^[ \t]*(?:from[ \t]++([A-Za-z_]\w*+)[\w.]*+[ \t]++import\b|import[ \t]+([A-Za-z_]\w*))", re.MULTILINE
)

_DOCSTRING = re.compile(rb'(?:[ \t]*(?:#[^\n]*)?\n)*[rRuU]?("""|\'\'\')(.*?)\1', re.DOTALL)
_SCANNED = 20_000

_PARSED = 1 << 18
"""The most bytes that are parsed. A larger file is probably generated, and would take seconds."""

_LOOP = ("body", "orelse")
_TRY = ("body", "handlers", "orelse", "finalbody")
_BODIES: dict[type, tuple[str, ...]] = {
    **dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.With, ast.AsyncWith), ("body",)),
    **dict.fromkeys((ast.ExceptHandler, ast.match_case), ("body",)),
    **dict.fromkeys((ast.If, ast.For, ast.AsyncFor, ast.While), _LOOP),
    ast.Try: _TRY,
    ast.TryStar: _TRY,
    ast.Match: ("cases",),
}
"""The fields of a statement that contain statements."""


@dataclass(slots=True)
class PythonSource:
    """`names` are the top-level functions and classes in order, such as `load()` and `class Probe`. `imported` are the
    first parts of all imports, without relative ones."""

    purpose: str | None = None
    names: list[str] = field(default_factory=list)
    imported: set[str] = field(default_factory=set)
    problem: str | None = None


def python_source(content: bytes) -> PythonSource:
    """Read a file. If it is not Python 3 or too large, it has a `problem`, and its lines are searched instead."""
    if len(content) > _PARSED:
        return _scan_lines(content, f"over {_PARSED:,} bytes, so it was not parsed")
    try:
        with warnings.catch_warnings():  # such as odd escape sequences
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except SyntaxError as error:
        line = f" in line {error.lineno}" if error.lineno else ""
        return _scan_lines(content, f"syntax error{line}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return _scan_lines(content, f"cannot be parsed: {error or type(error).__name__}")
    try:
        docstring = ast.get_docstring(tree)
    except ValueError:
        docstring = None
    names = [name for node in tree.body for name in _definition(node)]
    return PythonSource(docstring, names, set(_imports(tree.body)))


def _definition(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        yield f"class {node.name}"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield f"{node.name}()"


def _imports(body: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the imports of all statements, including those in functions."""
    pending = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level and node.module:
                yield node.module.partition(".")[0]
        else:
            for name in _BODIES.get(type(node), ()):
                pending += getattr(node, name)


def _scan_lines(content: bytes, problem: str) -> PythonSource:
    kinds = {b"class": "class {}", b"def": "{}()"}
    names = [kinds[kind].format(name.decode(errors="replace")) for kind, name in _DEFINED.findall(content)]
    imported = {(whole or part).decode(errors="replace") for whole, part in _IMPORTED.findall(content)}
    docstring = _DOCSTRING.match(content[:_SCANNED])
    purpose = docstring[2].decode(errors="replace") if docstring else None
    return PythonSource(purpose, names, imported, problem)


class Modules:
    """The modules of a tree, to distinguish imports of them from those of packages."""

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

    def classify(self, path: str, imported: Collection[str]) -> dict[str, list[str]]:
        """Sort the imports of a file into `packages`, `standard` library and `local` modules.

        Local modules are next to the file, in a folder above it, or in `src` or `lib`.
        """
        groups: dict[str, list[str]] = {"packages": [], "standard": [], "local": []}
        local = [self._in.get(folder, set()) for folder in ("src", "lib", *_above(path))]
        for name in sorted(imported):
            if name == "__future__":
                continue
            if any(name in known for known in local):
                groups["local"].append(name)
            else:
                groups["standard" if name in sys.stdlib_module_names else "packages"].append(name)
        return groups


def _above(path: str) -> Iterator[str]:
    folder = path
    while folder:
        folder = folder.rpartition("/")[0]
        yield folder
