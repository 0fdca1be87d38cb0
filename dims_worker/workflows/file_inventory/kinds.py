"""Which files an inventory lists: their kind by name, and their category by kind and location."""

from __future__ import annotations

import re
from dataclasses import dataclass

CATEGORIES = {
    "scripts": "Scripts and source code",
    "sql": "SQL",
    "tests": "Tests",
    "documentation": "Documentation",
    "build": "Build",
    "configuration": "Configuration",
}
"""The categories in the order of the report, and their headings."""

LEFT_OUT = (
    *(f"**/{name}/**" for name in ("__pycache__", "node_modules", "site-packages", ".ipynb_checkpoints", "*.egg-info")),
    *(f"**/{name}/**" for name in (".venv", "venv", ".tox", ".nox", ".cache", ".hypothesis", "htmlcov")),
    *(f"**/{name}/**" for name in (".mypy_cache", ".pytest_cache", ".ruff_cache", ".terraform", ".svn", ".hg")),
    *("**/*~", "**/*.bak", "**/*.orig", "**/*.swp", "**/.DS_Store"),
)
"""Caches, installed packages and backups in any folder. `.git` is never part of a tree."""

_DATA = 256 * 1024
"""A `.json`, `.xml` or `.txt` file with more bytes is data."""

_DATA_FOLDER = "data/"
"""Here a file of a kind that is otherwise configuration or text is data. Scripts, SQL and Markdown are not."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """The kind of a file. `comment` is the start of its comments, or None."""

    name: str
    category: str
    comment: str | None = None


def _kinds(category: str, comment: str | None, **names: str) -> dict[str, FileKind]:
    """Map file extensions or names to kinds. Each keyword is the name of a kind."""
    return {end: FileKind(name, category, comment) for name, ends in names.items() for end in ends.split()}


_BY_END = {
    "py": FileKind("Python", "scripts", "#"),
    **dict.fromkeys(("sh", "bash", "zsh", "fish", "ksh"), FileKind("shell", "scripts", "#")),
    **_kinds("scripts", "#", R="r R", Julia="jl", Ruby="rb", Perl="pl pm"),
    **_kinds("scripts", "#", PowerShell="ps1", awk="awk"),
    **_kinds("scripts", "//", JavaScript="js mjs cjs jsx", TypeScript="ts tsx", Go="go", Rust="rs", Java="java"),
    **_kinds("scripts", "//", Scala="scala", Kotlin="kt", C="c h", Swift="swift"),
    "cpp": FileKind("C++", "scripts", "//"),
    "hpp": FileKind("C++", "scripts", "//"),
    "cs": FileKind("C#", "scripts", "//"),
    "pyw": FileKind("Python", "scripts", "#"),
    "pyi": FileKind("Python", "scripts", "#"),
    "ipynb": FileKind("notebook", "scripts"),
    **_kinds("sql", "--", SQL="sql ddl dml psql pgsql"),
    **_kinds("documentation", None, Markdown="md markdown mdx", reStructuredText="rst", text="txt", AsciiDoc="adoc"),
    **_kinds("build", "#", make="mk", CMake="cmake", Terraform="tf tfvars", Nix="nix"),
    **_kinds("build", "//", Gradle="gradle"),
    **_kinds("build", None, lock="lock"),
    **_kinds("configuration", "#", YAML="yaml yml", TOML="toml", INI="ini cfg conf", properties="properties"),
    **_kinds("configuration", "#", environment="env", service="service timer"),
    **_kinds("configuration", None, JSON="json jsonc", XML="xml", plist="plist"),
}

_BY_NAME = {
    **_kinds(
        "build", "#", make="Makefile makefile GNUmakefile", Docker="Dockerfile Containerfile", Procfile="Procfile"
    ),
    **_kinds("build", "#", CMake="CMakeLists.txt", INI="setup.cfg tox.ini", TOML="pyproject.toml Cargo.toml Pipfile"),
    **_kinds(
        "build", "#", YAML="environment.yml environment.yaml .gitlab-ci.yml .travis.yml", just="justfile Justfile"
    ),
    **_kinds("build", "#", Python="setup.py noxfile.py"),
    "gradlew": FileKind("shell", "build", "#"),
    **_kinds("build", "//", Jenkins="Jenkinsfile", Go="go.mod"),
    **_kinds("build", None, JSON="package.json tsconfig.json package-lock.json"),
    **_kinds("documentation", None, text="README LICENSE LICENCE COPYING NOTICE CHANGELOG AUTHORS CONTRIBUTING TODO"),
    **_kinds("configuration", "#", git=".gitignore .gitattributes .gitmodules .mailmap", Docker=".dockerignore"),
    **_kinds("configuration", "#", environment=".env .envrc", INI=".editorconfig .coveragerc .flake8 .pylintrc"),
}

_REQUIREMENTS = re.compile(r"(.*[-_.])?(requirements|constraints)[\w.-]*\.(txt|in)")
_DOCKER = re.compile(r"(docker-)?compose[\w.-]*\.ya?ml|Dockerfile[.\w-]+|[\w.-]+\.[Dd]ockerfile")
_BUILD_FOLDERS = (".github/workflows/", ".circleci/", ".ci/", "ci/")
_TEST_NAME = re.compile(r"(test_.*|.*_test|conftest)\.py|.*\.(test|spec)\.[jt]sx?|.*_test\.go|test_.*\.sh|.*\.bats")
_TEST_FOLDER = re.compile(r"(^|/)(tests?|__tests__)/")
_SHEBANG = re.compile(rb"#![^\n]*\b(python|bash|sh|zsh|ksh|Rscript|ruby|perl|node|julia)")
_PROGRAMS = {
    b"python": "py",
    b"Rscript": "R",
    b"ruby": "rb",
    b"perl": "pl",
    b"node": "js",
    b"julia": "jl",
    **dict.fromkeys((b"bash", b"sh", b"zsh", b"ksh"), "sh"),
}


def kind_by_name(path: str) -> FileKind | None:
    """Return the kind of a file by its path, or None if the path does not show it."""
    name = path.rpartition("/")[2]
    end = name.rpartition(".")[2] if "." in name.lstrip(".") else ""
    if _REQUIREMENTS.fullmatch(name):
        return FileKind("requirements", "build", "#")
    if _DOCKER.fullmatch(name):
        return _BY_NAME["Dockerfile"]
    if name.startswith(".env."):
        return _BY_NAME[".env"]
    kind = _BY_NAME.get(name) or _BY_END.get(end) or _BY_END.get(end.lower())
    return _adjusted_to_location(kind, path, name) if kind else None


def _adjusted_to_location(kind: FileKind, path: str, name: str) -> FileKind:
    """Change the category of build files and tests, which their location shows."""
    if kind.category in ("configuration", "scripts") and path.startswith(_BUILD_FOLDERS):
        return FileKind(kind.name, "build", kind.comment)
    if _TEST_NAME.fullmatch(name) or (kind.category in ("scripts", "sql") and _TEST_FOLDER.search(path)):
        return FileKind(kind.name, "tests", kind.comment)
    return kind


def may_be_script(path: str) -> bool:
    """Return whether a file has no extension, so that only its first line can show its kind."""
    return "." not in path.rpartition("/")[2]


def kind_by_shebang(path: str, head: bytes) -> FileKind | None:
    """Return the kind of a program without an extension, by its first line."""
    shebang = _SHEBANG.match(head)
    return _adjusted_to_location(_BY_END[_PROGRAMS[shebang[1]]], path, path.rpartition("/")[2]) if shebang else None


def is_data(kind: FileKind, path: str, size: int) -> bool:
    """Return whether a file of this kind is data: because it is large, or in the top folder `data`."""
    if path.startswith(_DATA_FOLDER) and (kind.category == "configuration" or kind.name == "text"):
        return True
    return size > _DATA and kind.name in ("JSON", "XML", "text") and kind.category != "build"


def is_secret(path: str) -> bool:
    """Return whether a file may have secrets. The inventory does not show its content then."""
    name = path.rpartition("/")[2]
    return name.startswith(".env") or name.endswith(".env")
