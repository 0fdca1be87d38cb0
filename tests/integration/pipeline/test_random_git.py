"""Random git operations, with each hook present or absent at random.

After any event is served, each metric of the repository, and of its files, equals what git, find and wc print.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dims_producers.git_hook import HOOKS, install
from dims_producers.spool import Spool
from dims_worker.events import Event
from dims_worker.pipeline.verify import measure_due
from dims_worker.store.engine import transaction
from tests.conftest import GIT_ENV, Project
from tests.integration.helpers import Flow, event

SEEDS = [int(seed) for seed in os.environ.get("DIMS_TEST_GIT_SEEDS", "1 2 3").split()]
OPERATIONS = int(os.environ.get("DIMS_TEST_GIT_OPERATIONS", "14"))

YAML = """
settings: {lease: 60s}
sources:
  repo: {type: git, path: repo, cooldown: 0s}
  tree: {type: files, path: repo, cooldown: 0s}
  code: {type: files, path: repo, ignore: gitignore, cooldown: 0s}
metrics:
  git:
    commits: {source: repo, measure: commits}
    all: {source: repo, measure: commits, all_branches: true}
    main: {source: repo, measure: commits, branch: main}
    docs: {source: repo, measure: commits, paths: "docs/**"}
    ada: {source: repo, measure: commits, author: "^Ada <"}
    newest: {source: repo, measure: newest_age}
    tracked: {source: repo, measure: tracked_files}
    tracked_docs: {source: repo, measure: tracked_files, paths: "docs/**"}
    branches: {source: repo, measure: branches}
    size: {source: repo, measure: size}
  files:
    count: {source: tree, measure: count}
    lines: {source: tree, measure: lines}
    bytes: {source: tree, measure: bytes}
    docs: {source: tree, measure: lines, paths: "docs/**", absent: 0}
    code: {source: code, measure: count}
    code_lines: {source: code, measure: lines}
rules:
  git: {on: "dims.git.*"}
  changed: {on: dims.files.changed}
"""


@dataclass
class Repository:
    """A repository below `folder`, in which random things happen."""

    folder: Path
    random: random.Random
    others: Path
    log: list[str] = field(default_factory=list)
    number: int = 0

    def git(self, *args: str, at: Path | None = None, lines: str = "") -> str:
        """Run git, which may fail: a merge with conflicts, a branch that does not exist."""
        self.number += 1
        dates = {f"GIT_{role}_DATE": f"{1_750_000_000 + self.number * 60} +0000" for role in ("AUTHOR", "COMMITTER")}
        ada = self.random.choice(["Ada <ada@x.org>", "A. L. <old@x.org>"]).split(" <")
        author = {"GIT_AUTHOR_NAME": ada[0], "GIT_AUTHOR_EMAIL": ada[1].rstrip(">"), "GIT_EDITOR": "true"}
        done = subprocess.run(
            ["git", "-C", str(at or self.folder), "-c", "protocol.file.allow=always", *args],
            env={**os.environ, **GIT_ENV, **dates, **author},
            input=lines,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def edit(self, at: Path | None = None) -> None:
        top = at or self.folder
        names = ["a", "docs/b", "docs/c d", "deep/er/e", f"new{self.random.randrange(4)}", "x.log"]
        for name in self.random.sample(names, self.random.randint(1, 3)):
            file = top / name
            if file.exists() and self.random.random() < 0.3:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("line\n" * self.random.randrange(6) + "end" * self.random.randrange(2))

    def branch(self) -> str:
        return self.random.choice(
            self.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split() or ["main"]
        )

    # --- operations ---

    def commit(self) -> None:
        self.edit()
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")

    def commit_without_hooks(self) -> None:
        self.edit()
        self.git("add", "-A")
        self.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "x")

    def commit_by_plumbing(self) -> None:
        commit = self.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "plumbing").strip()
        self.git("update-ref", "HEAD", commit)

    def amend(self) -> None:
        self.edit()
        self.git("commit", "-q", "-a", "--amend", "--allow-empty", "-m", "amended")

    def save(self) -> None:
        self.edit()

    def stage(self) -> None:
        self.edit()
        self.git("add", "-A")

    def reset(self) -> None:
        self.git("reset", "-q", self.random.choice(["--hard", "--mixed", "--soft"]), "HEAD~1")

    def new_branch(self) -> None:
        self.git("checkout", "-q", "-b", f"b{self.number}", self.random.choice(["HEAD", "HEAD~1"]))

    def checkout(self) -> None:
        self.git("checkout", "-q", "-f", self.random.choice([self.branch(), "HEAD~1", "main"]))

    def rename_branch(self) -> None:
        self.git("branch", "-m", self.branch(), f"r{self.number}")

    def delete_branch(self) -> None:
        self.git("branch", "-q", "-D", self.branch())

    def merge(self) -> None:
        self.git("merge", "-q", *self.random.choice([["--no-ff"], ["--ff"], ["--squash"]]), "--no-edit", self.branch())

    def rebase(self) -> None:
        self.git("rebase", "-q", self.random.choice(["--merge", "--apply"]), self.branch())

    def cherry_pick(self) -> None:
        self.git("cherry-pick", "--allow-empty", self.branch())

    def revert(self) -> None:
        self.git("revert", "--no-edit", "HEAD")

    def apply_patch(self) -> None:
        patch = self.git("format-patch", "-1", "--stdout", self.branch())
        self.git("reset", "-q", "--hard", "HEAD~1")
        self.git("am", "-q", "--3way", lines=patch)

    def stash(self) -> None:
        self.edit()
        self.git("stash", "-q", *self.random.choice([[], ["-u"]]))

    def unstash(self) -> None:
        self.git("stash", "pop", "-q")

    def bisect(self) -> None:
        self.git("bisect", "start", "HEAD", "HEAD~2")

    def finish(self) -> None:
        """End what is in progress, one way or another."""
        for operation in ("rebase", "am", "merge", "cherry-pick", "revert"):
            if self.random.random() < 0.3:
                self.git("add", "-A")
                self.git(operation, "--continue")
            self.git(operation, self.random.choice(["--abort", "--quit"]))
        self.git("bisect", "reset")

    def submodule(self) -> None:
        self.git(
            "submodule", "--quiet", "add", "-f", str(self.others / "module"), f"modules/m{self.random.randrange(2)}"
        )
        if self.random.random() < 0.5:
            self.git("commit", "-q", "-m", "a submodule")

    def add_worktree(self) -> None:
        self.git("worktree", "add", "-q", "-b", f"w{self.number}", str(self.others / f"w{self.number}"))

    def use_worktree(self) -> None:
        for tree in self.others.glob("w*"):
            self.edit(tree)
            self.git("add", "-A", at=tree)
            self.git("commit", "-q", "-m", "in a worktree", at=tree)

    def remove_worktree(self) -> None:
        for tree in self.others.glob("w*"):
            self.git("worktree", "remove", "-f", str(tree))

    def mailmap(self) -> None:
        (self.folder / ".mailmap").write_text(self.random.choice(["", "Ada <ada@x.org> <old@x.org>\n"]))

    def tidy(self) -> None:
        self.git(*self.random.choice([["gc", "-q"], ["pack-refs", "--all"], ["prune"]]))

    def tag(self) -> None:
        self.git("tag", "-f", "v1")


OPERATION_NAMES = [
    name
    for name, value in vars(Repository).items()
    if callable(value) and not name.startswith("_") and name not in ("git", "edit", "branch")
]


# --- the truth ---


def run(*command: str, at: Path, lines: bytes = b"") -> bytes:
    env = {**os.environ, **GIT_ENV}
    return subprocess.run(command, cwd=at, input=lines, env=env, capture_output=True, check=False).stdout


def git_truth(repo: Path) -> dict[str, object]:
    def lines(*args: str, stdin: bytes = b"") -> list[str]:
        return os.fsdecode(run("git", *args, at=repo, lines=stdin)).splitlines()

    commits = run("git", "rev-list", "HEAD", at=repo)
    changed: dict[str, bool] = {}
    for line in lines("diff-tree", "--stdin", "-r", "-c", "--root", "--no-renames", "--name-only", stdin=commits):
        if len(line) == 40 and " " not in line and "/" not in line:
            current = line
        elif line.startswith("docs/"):
            changed[current] = True
    kib = dict(line.split(": ") for line in lines("count-objects", "-v"))
    tracked = set(lines("ls-files"))
    newest = max((int(line) for line in lines("log", "--format=%ct")), default=0)
    main = lines("rev-list", "--count", "refs/heads/main")
    return {
        "git.commits": len(commits.split()),
        "git.all": len(lines("rev-list", "--branches")),
        "git.main": int(main[0]) if main else None,
        "git.docs": len(changed),
        "git.ada": sum(line.startswith("Ada <") for line in lines("log", "--format=%aN <%aE>")),
        "git.newest": datetime.fromtimestamp(newest, UTC).isoformat(),
        "git.tracked": len(tracked),
        "git.tracked_docs": sum(path.startswith(("docs/", '"docs/')) for path in tracked),
        "git.branches": len(lines("for-each-ref", "refs/heads")),
        "git.size": 1024 * sum(int(kib[part]) for part in ("size", "size-pack", "size-garbage")),
    }


def files_truth(repo: Path) -> dict[str, object]:
    def wc(*find: str) -> tuple[int, int, int]:
        find_files = ["find", ".", "-name", ".git", "-prune", "-o", "-type", "f", *find, "-print0"]
        names = run(*find_files, at=repo)
        content = run("xargs", "-0", "-r", "cat", at=repo, lines=names)
        counted = run("wc", "-l", "-c", at=repo, lines=content).split()
        return names.count(b"\0"), int(counted[0]), int(counted[1])

    count, lines, size = wc()
    code = wc("!", "-name", "*.log")
    return {
        "files.count": count,
        "files.lines": lines,
        "files.bytes": size,
        "files.docs": wc("-path", "./docs/*")[1],
        "files.code": code[0],
        "files.code_lines": code[1],
    }


# --- the test ---


@dataclass
class Served:
    """A configuration with its database. `repo` is where things happen."""

    flow: Flow
    repo: Repository
    spool: Spool
    hooks: Path
    checks: int = 0

    def choose_hooks(self) -> list[str]:
        """Keep some of the hooks of DIMS, and none of the others."""
        folder = self.repo.folder / ".git/hooks"
        chosen = [name for name in HOOKS if self.repo.random.random() < 0.5]
        for name in HOOKS:
            (folder / name).unlink(missing_ok=True)
        for name in chosen:
            shutil.copy2(self.hooks / name, folder / name)
        return chosen

    def events(self) -> list[Event]:
        events: list[Event] = []
        self.spool.flush(events.extend)
        return events

    def serve(self, events: list[Event]) -> None:
        self.flow.store(*events)
        with transaction(self.flow.engine) as connection:
            query = "SELECT DISTINCT source FROM dims_metrics WHERE requested_gen > measured_gen AND source IS NOT NULL"
            due = [row.source for row in connection.execute(text(query))]
        for source in due:
            measure_due(self.flow.engine, self.flow.config, source, at_once=True)

    def check(self, events: list[Event]) -> None:
        """Compare every metric of the place of an event with the truth."""
        root = os.path.realpath(self.repo.folder)
        expected = git_truth(self.repo.folder)
        if any(event.data["root"] == root for event in events):
            expected |= files_truth(self.repo.folder)
        states = {name: self.flow.state(name) for name in expected}
        values = {name: None if state.error else state.value for name, state in states.items()}
        assert values == expected, "\n".join(self.repo.log)
        self.checks += 1


@pytest.fixture
def make_served(project: Project, engine: Engine) -> Callable[[int], Served]:
    def make(seed: int) -> Served:
        project.write({"dims.yaml": YAML, "repo/.gitignore": "*.log\n", "others/module/f": "one\n"})
        repo = Repository(project.folder / "repo", random.Random(seed), project.folder / "others")
        for folder in (repo.folder, repo.others / "module"):
            repo.git("init", "-q", "-b", "main", at=folder)
            repo.git("add", "-A", at=folder)
            repo.git("commit", "-q", "-m", "first", at=folder)
        for _ in range(3):
            repo.commit()
        home = project.folder / ".dims"
        install(repo.folder, home)
        hooks = shutil.copytree(repo.folder / ".git/hooks", project.folder / "hooks")
        (home / "spool" / "watcher.pid").write_text(f"{os.getpid()}\n")  # so that no hook starts a sender
        return Served(Flow(engine, project.config), repo, Spool(home / "spool"), hooks)

    return make


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_event_every_metric_is_right(make_served: Callable[[int], Served], seed: int) -> None:
    served = make_served(seed)
    repo = served.repo
    first = [event("dims.git.commit", root=os.path.realpath(repo.folder), paths=[])]
    served.serve(first)
    served.check(first)
    for step in range(OPERATIONS):
        hooks = served.choose_hooks()
        name = repo.random.choice(OPERATION_NAMES)
        getattr(repo, name)()
        events = served.events()
        if step == OPERATIONS - 1 or repo.random.random() < 0.2:  # one from elsewhere, about another path
            kind = repo.random.choice(["dims.git.commit", "dims.git.refs_changed", "dims.files.changed"])
            events.append(event(kind, root=os.path.realpath(repo.folder), paths=["README"]))
        repo.log.append(f"{name} with {hooks}: {[each.type for each in events]}")
        if events:
            served.serve(events)
            served.check(events)
    assert served.checks > 1
