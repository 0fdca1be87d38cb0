"""Write a first configuration for a folder."""

from __future__ import annotations

import itertools
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
TESTS = {
    "python": ("**/test_*.py", "**/*_test.py"),
    "go": ("**/*_test.go",),
    "javascript": ("**/*.test.js", "**/*.spec.js"),
    "typescript": ("**/*.test.ts", "**/*.spec.ts"),
}
DOCUMENTS = (".md", ".rst")


def draft_config(folder: Path) -> str:
    """Return the text of a dims.yaml that measures what `folder` contains."""
    in_git = (folder / ".git").exists()
    suffixes = Counter(PurePosixPath(name).suffix for name in _file_names(folder, in_git))
    sources = [f'  project: {{type: files, path: "."{", ignore: gitignore" if in_git else ""}}}']
    rules = ["  files_changed: {on: dims.files.changed}"]
    if in_git:
        sources.append('  repo: {type: git, path: "."}')
        rules.insert(0, '  git_post_commit: {on: "dims.git.*"}   # every metric that reads what changed')
    lines = [
        "# What DIMS measures here. Check this file with `dims config check`. `dims config show` prints every default.",
        *("sources:", *sources, "metrics:", *_code(suffixes), *_documentation(suffixes)),
        *("  project:", '    files: {source: project, measure: count, paths: "**"}'),
        '    bytes: {source: project, measure: bytes, unit: kB, precision: 1, paths: "**"}',
    ]
    if in_git:
        lines += ["  git:", "    commits: {source: repo, measure: commits, unit: commits}"]
        lines += ["    tracked_files: {source: repo, measure: tracked_files}"]
    return "\n".join([*lines, "rules:", *rules, "watch: [project]", ""])


def _file_names(folder: Path, in_git: bool) -> Iterable[str]:
    """Return names of files in the folder: those that git does not ignore, or the first 50,000."""
    if in_git:
        command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=False, timeout=60)
        if listed.returncode == 0:
            return os.fsdecode(listed.stdout).split("\0")[:-1]
    names = (name for _, folders, files in os.walk(folder) if not folders.sort() for name in files)
    return list(itertools.islice(names, 50_000))


def _code(suffixes: Counter[str]) -> list[str]:
    lines = []
    for language, endings in LANGUAGES.items():
        if any(suffixes[ending] for ending in endings):
            paths = _yaml_list(f"**/*{ending}" for ending in endings)
            lines.append(f"    {language}_files: {{source: project, measure: count, paths: {paths}}}")
            lines.append(f"    {language}_lines: {{source: project, measure: lines, paths: {paths}}}")
            if tests := TESTS.get(language):
                lines.append(f"    {language}_tests: {{source: project, measure: count, paths: {_yaml_list(tests)}}}")
    return ["  code_base:", *lines] if lines else []


def _documentation(suffixes: Counter[str]) -> list[str]:
    endings = [ending for ending in DOCUMENTS if suffixes[ending]]
    if not endings:
        return []
    paths = _yaml_list(f"**/*{ending}" for ending in endings)
    files = f"    files: {{source: project, measure: count, paths: {paths}}}"
    return ["  documentation:", files, f"    lines: {{source: project, measure: lines, paths: {paths}}}"]


def _yaml_list(patterns: Iterable[str]) -> str:
    quoted = [f'"{pattern}"' for pattern in patterns]
    return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"
