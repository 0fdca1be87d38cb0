"""A first configuration for the folder that somebody stands in."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

LANGUAGES = {
    "python": (".py",),
    "sql": (".sql",),
    "javascript": (".js", ".jsx", ".mjs"),
    "typescript": (".ts", ".tsx"),
    "go": (".go",),
    "rust": (".rs",),
    "java": (".java",),
    "kotlin": (".kt",),
    "ruby": (".rb",),
    "php": (".php",),
    "c": (".c", ".h"),
    "cpp": (".cc", ".cpp", ".hpp"),
    "csharp": (".cs",),
    "r": (".r", ".R"),
    "shell": (".sh",),
}
TESTS = {"python": ("**/test_*.py", "**/*_test.py"), "go": ("**/*_test.go",),
         "javascript": ("**/*.test.js", "**/*.spec.js"), "typescript": ("**/*.test.ts", "**/*.spec.ts")}  # fmt: skip
DOCUMENTS = (".md", ".rst")


def draft_config(folder: Path) -> str:
    """The text of a dims.yaml for `folder`: what it has is counted, what it has not is left out."""
    in_git = (folder / ".git").exists()
    suffixes = Counter(PurePosixPath(name).suffix for name in _names(folder, in_git))
    sources = [f'  project: {{type: files, path: "."{", ignore: gitignore" if in_git else ""}}}']
    rules = ["  files_changed: {on: dims.files.changed}"]
    if in_git:
        sources.append('  repo: {type: git, path: "."}')
        rules.insert(0, '  git_post_commit: {on: "dims.git.*"}   # no metrics: whatever reads what changed')
    lines = [
        "# What DIMS measures here. `dims config check` proves it, `dims config show` shows every default.",
        *("sources:", *sources, "metrics:", *_code(suffixes), *_documentation(suffixes)),
        *("  project:", '    files: {source: project, measure: count, paths: "**"}'),
        '    bytes: {source: project, measure: bytes, unit: kB, precision: 1, paths: "**"}',
    ]
    if in_git:
        lines += ["  git:", "    commits: {source: repo, measure: commits, unit: commits}",
                  "    tracked_files: {source: repo, measure: tracked_files}"]  # fmt: skip
    return "\n".join([*lines, "rules:", *rules, "watch: [project]", ""])


def _names(folder: Path, in_git: bool) -> Iterable[str]:
    """Some names of files, enough to see what is there."""
    if in_git:
        command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=False, timeout=60)
        if listed.returncode == 0:
            return os.fsdecode(listed.stdout).split("\0")[:-1]
    found = (name for _, folders, names in os.walk(folder) if not folders.sort() for name in names)
    return [name for name, _ in zip(found, range(50_000), strict=False)]


def _code(suffixes: Counter[str]) -> list[str]:
    lines = []
    for language, endings in LANGUAGES.items():
        if any(suffixes[ending] for ending in endings):
            paths = _list(f"**/*{ending}" for ending in endings)
            lines.append(f"    {language}_files: {{source: project, measure: count, paths: {paths}}}")
            lines.append(f"    {language}_lines: {{source: project, measure: lines, paths: {paths}}}")
            if language in TESTS:
                lines.append(
                    f"    {language}_tests: {{source: project, measure: count, paths: {_list(TESTS[language])}}}"
                )
    return ["  code_base:", *lines] if lines else []


def _documentation(suffixes: Counter[str]) -> list[str]:
    endings = [ending for ending in DOCUMENTS if suffixes[ending]]
    if not endings:
        return []
    paths = _list(f"**/*{ending}" for ending in endings)
    return ["  documentation:", f"    files: {{source: project, measure: count, paths: {paths}}}",
            f"    lines: {{source: project, measure: lines, paths: {paths}}}"]  # fmt: skip


def _list(patterns: Iterable[str]) -> str:
    quoted = [f'"{pattern}"' for pattern in patterns]
    return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"
