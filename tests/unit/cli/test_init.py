"""Test what `dims init` writes for many kinds of folders, and that it never hides a configuration."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dims_worker.cli.init_template import draft_config
from dims_worker.config import Config, FilesMetric, load_config
from dims_worker.domain.decide import Baseline, Judge, Verdict
from dims_worker.probes import probe_for
from dims_worker.probes.base import Deadline, ScanContext, Value
from tests.unit.cli.test_usage import Dims, dims, folder, write

__all__ = ["dims", "folder"]  # fixtures

NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Create an empty git repository."""
    repo = tmp_path / "a repo"
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    return repo


def drafted(place: Path) -> Config:
    (place / "dims.yaml").write_text(draft_config(place))
    return load_config(None, {}, place)


def measured(config: Config) -> dict[str, Value]:
    """Measure all metrics of a configuration. Every one of them can be measured."""
    values: dict[str, Value] = {}
    for source in config.sources:
        declared = config.sources[source]
        names = {name: config.metrics[name] for name in config.metrics_by_source[source]}
        context = ScanContext(config.project, config.home)
        result = probe_for(declared.type).scan(declared, names, context, Deadline.after(timedelta(seconds=20)))
        assert [(each.metric, each.error) for each in result.readings if each.error] == []
        values |= {each.metric: each.value for each in result.readings}
    return values


def verdicts(config: Config, before: Mapping[str, Value], after: Mapping[str, Value]) -> dict[str, Verdict]:
    return {
        name: Judge.of(config, name).decide(Baseline(value), after[name], Baseline(value), NOW)
        for name, value in before.items()
    }


def held(config: Config, before: Mapping[str, Value], after: Mapping[str, Value]) -> set[str]:
    return {name for name, verdict in verdicts(config, before, after).items() if verdict.tier == "approve"}


def noticed(config: Config, before: Mapping[str, Value], after: Mapping[str, Value]) -> set[str]:
    return {name for name, verdict in verdicts(config, before, after).items() if verdict.tier != "auto"}


def data_files(number: int, where: str = "data", end: str = "csv") -> dict[str, str]:
    return {f"{where}/games {n}.{end}": f"{n:03}\n" * 50 for n in range(number)}


def delete(place: Path, names: list[str]) -> None:
    for name in names:
        (place / name).unlink()


# --- how much of the data must disappear ----------------------------------------------------------------

NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 40, 120)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_loss_of_half_of_the_data_waits(number: int, repo: Path) -> None:
    files = list(data_files(number))
    write(repo, {**data_files(number), "load.py": "1\n", "README.md": "x\n"})
    config = drafted(repo)
    before = measured(config)
    assert before["data.files"] == number
    delete(repo, files[: max(1, number // 2)])
    assert held(config, before, measured(config)) >= {"data.files", "data.bytes"}


@pytest.mark.parametrize("number", [number for number in NUMBERS if number > 3])
def test_a_loss_of_one_data_file_is_ordinary(number: int, repo: Path) -> None:
    files = list(data_files(number))
    write(repo, {**data_files(number), "load.py": "1\n"})
    config = drafted(repo)
    before = measured(config)
    delete(repo, files[:1])
    assert noticed(config, before, measured(config)) == set()


@pytest.mark.parametrize("number", [0, *NUMBERS])
def test_growth_is_ordinary(number: int, repo: Path) -> None:
    write(repo, {**data_files(number), "load.py": "1\n", "README.md": "x\n"})
    config = drafted(repo)
    before = measured(config)
    write(repo, {**data_files(2 * number + 5), "new.py": "2\n" * 900, "new.md": "2\n" * 900})
    assert noticed(config, before, measured(config)) == set()


def test_data_whose_content_disappears_waits(repo: Path) -> None:
    write(repo, data_files(40))
    config = drafted(repo)
    before = measured(config)
    write(repo, dict.fromkeys(list(data_files(40))[:20], ""))
    assert held(config, before, measured(config)) == {"data.bytes"}


def test_data_that_comes_later_is_protected(repo: Path) -> None:
    config = drafted(repo)
    assert measured(config)["data.files"] == 0
    write(repo, data_files(40))
    before = measured(config)
    delete(repo, list(data_files(40))[:20])
    assert "data.files" in held(config, before, measured(config))


@pytest.mark.parametrize("number", [4, 6, 12, 30])
def test_small_changes_of_code_and_documents_are_ordinary(number: int, repo: Path) -> None:
    write(repo, {f"src/m{n}.py": "x = 1\n" * 40 for n in range(number)})
    write(repo, {f"docs/d{n}.md": "text\n" * 40 for n in range(number)})
    config = drafted(repo)
    before = measured(config)
    delete(repo, ["src/m0.py", "src/m1.py", "docs/d0.md"])  # two modules become one
    write(repo, {"src/m2.py": "x = 1\n" * 60})
    assert noticed(config, before, measured(config)) == set()


# --- where the data is ----------------------------------------------------------------------------------

IGNORED = {
    "a folder": ("data/\n", "data"),
    "the content of a folder": ("data/*\n!data/.gitkeep\n", "data"),
    "a kind of file": ("*.csv\n", "some/where"),
    "a kind of file at the top": ("*.csv\n", ""),
    "a folder in a folder": ("src/*/raw/\n", "src/games/raw"),
    "a folder of any name": ("/lake of 2026\n", "lake of 2026/[x]*"),
}


@pytest.mark.parametrize(("rules", "where"), IGNORED.values(), ids=IGNORED)
def test_data_that_git_ignores_is_measured(rules: str, where: str, repo: Path) -> None:
    files = {name.removeprefix("/"): text for name, text in data_files(12, where).items()}
    packages = data_files(30, "node_modules/x") | data_files(30, "venv/lib") | data_files(30, "build")
    write(
        repo,
        {".gitignore": f"{rules}node_modules\nvenv/\nbuild\n", "a.py": "", "kept/a.json": "1", **packages, **files},
    )
    (repo / "data").mkdir(exist_ok=True)
    (repo / "data" / ".gitkeep").touch()
    config = drafted(repo)
    before = measured(config)
    assert before["data.files"] == 1
    assert before["data.ignored_files"] in (12, 13)  # with .gitkeep
    delete(repo, list(files)[:6])
    assert held(config, before, measured(config)) == {"data.ignored_files", "data.ignored_bytes"}


def test_an_ignored_folder_that_disappears_is_a_loss_and_no_error(repo: Path) -> None:
    write(repo, {".gitignore": "data/\n", **data_files(12)})
    config = drafted(repo)
    before = measured(config)
    shutil.rmtree(repo / "data")
    assert held(config, before, measured(config)) == {"data.ignored_files", "data.ignored_bytes"}


def test_data_that_git_will_ignore_is_measured_when_it_comes(repo: Path) -> None:
    write(repo, {".gitignore": "/data/\n", "load.py": ""})
    config = drafted(repo)
    assert measured(config)["data.ignored_files"] == 0
    write(repo, data_files(10, "data/raw"))
    assert measured(config)["data.ignored_files"] == 10


def test_only_packages_caches_and_results_are_ignored_data_of_no_one(repo: Path) -> None:
    ignored = ("node_modules", ".venv", "my_env", "build", "dist", "x.egg-info", ".cache", "__pycache__", "logs")
    files = {name: text for place in ignored for name, text in data_files(3, place).items()}
    write(repo, {".gitignore": "\n".join(ignored), "my_env/pyvenv.cfg": "", "a.py": "", ".env": "X=1\n", **files})
    config = drafted(repo)
    assert set(config.sources) == {"project", "repo"}
    assert measured(config)["data.files"] == 0


def test_data_behind_a_symbolic_link_is_measured(repo: Path, tmp_path: Path) -> None:
    write(tmp_path, data_files(12, "big disk"))
    (repo / "Data (2026)").symlink_to(tmp_path / "big disk")
    (repo / "around").symlink_to(tmp_path)
    (repo / "gone").symlink_to(tmp_path / "gone")
    config = drafted(repo)
    before = measured(config)
    assert before["data.linked_data_2026_files"] == 12
    assert config.watch == ("project", "linked_data_2026")
    delete(tmp_path, list(data_files(12, "big disk"))[:6])
    assert "data.linked_data_2026_files" in held(config, before, measured(config))


KINDS = {
    "an unknown kind": {f"x{n}.station": "1" for n in range(8)},
    "capital letters": {f"x{n}.CSV": "1" for n in range(8)},
    "texts": {f"corpus/x{n}.txt": "1" for n in range(8)},
    "pictures": {f"images/{n}.jpg": "1" for n in range(8)},
    "no end": {f"parts/part-{n:05}": "1" for n in range(8)},
    "a number as end": {f"parts/run.{n:05}": "1" for n in range(8)},
    "a mixture below data": {f"data/x{n}": "1" for n in range(4)} | {f"data/{n}.csv": "1" for n in range(4)},
    "spaces and signs": {f"d [{n}]/ä *{n}.json": "1" for n in range(8)},
}


@pytest.mark.parametrize("files", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("git", [True, False])
def test_a_folder_with_only_data(files: Mapping[str, str], git: bool, repo: Path) -> None:
    if not git:
        shutil.rmtree(repo / ".git")
    write(repo, files)
    config = drafted(repo)
    before = measured(config)
    assert before["data.files"] == 8
    delete(repo, list(files)[:4])
    assert "data.files" in held(config, before, measured(config))


def test_files_that_configure_a_tool_are_no_data(repo: Path) -> None:
    names = ("package.json", "tsconfig.build.json", ".vscode/x.json", "requirements.txt", "web/package-lock.json")
    more = ("Makefile", "LICENSE", "Dockerfile", "a.html", "a.css", "logo.svg", "uv.lock", ".prettierrc.json", "x.pyc")
    write(repo, dict.fromkeys((*names, *more, "a.py", "b.ipynb", "c.md"), "x"))
    assert measured(drafted(repo))["data.files"] == 0


def test_the_size_of_a_git_lfs_file_is_that_of_its_content(repo: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{:064}\nsize {}\n"
    write(repo, {f"data/{n}.parquet": pointer.format(n, 3_000_000) for n in range(6)})
    config = drafted(repo)
    before = measured(config)
    assert (before["data.files"], before["data.bytes"], config.metrics["data.bytes"].unit) == (6, 18.0, "MB")
    assert config.metrics["data.bytes"].min_abs == 6.0  # twice the size of one of the six
    delete(repo, ["data/0.parquet"])
    assert noticed(config, before, measured(config)) == set()
    delete(repo, ["data/1.parquet", "data/2.parquet"])
    assert held(config, before, measured(config)) >= {"data.files", "data.bytes"}


@pytest.mark.parametrize("name", ["a${HOME}", "q'\"uote", "two\nlines", "# x", "*", "[a", "ü😀", "-x"])
def test_any_name_of_an_ignored_folder_is_written_so_that_it_matches(name: str, repo: Path) -> None:
    write(repo, {f"{name}/{n}.csv": "1" for n in range(4)})
    (repo / ".git" / "info" / "exclude").write_text("*.csv\n")
    config = drafted(repo)
    assert measured(config)["data.ignored_files"] == 4


def test_a_name_that_is_not_utf8_is_left_out_and_the_configuration_is_valid(repo: Path) -> None:
    (repo / "d\udcff").mkdir()
    write(repo, {"d\udcff/a.csv": "1", ".gitignore": "d*/\n", "e.csv": "1"})
    config = drafted(repo)
    assert measured(config)["data.files"] == 1


@pytest.mark.parametrize("name", ["raw", "own name {}"])
def test_many_ignored_folders_need_few_patterns(name: str, repo: Path) -> None:
    files = {f"part {n}/{name.format(n)}/games.csv": "1" for n in range(50)}
    write(repo, {**files, ".gitignore": "part*/*/\n", "kept.csv": "1"})
    config = drafted(repo)
    metric = config.metrics["data.ignored_files"]
    assert isinstance(metric, FilesMetric)
    assert len(metric.paths) < 60
    before = measured(config)
    assert before["data.ignored_files"] in (50, 51)  # without a place in the patterns, with the one that is kept
    delete(repo, list(files)[:25])
    assert "data.ignored_files" in held(config, before, measured(config))


def test_a_huge_folder_is_bounded_and_the_file_says_so(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dims_worker.cli.init_folder.MOST_FILES", 20)
    write(repo, data_files(30))
    assert "looked at the first 20." in draft_config(repo)
    config = drafted(repo)
    before = measured(config)
    assert before["data.files"] == 30
    delete(repo, list(data_files(30))[:15])
    assert "data.files" in held(config, before, measured(config))


def test_every_line_of_policy_has_a_comment_and_every_metric_is_judged(repo: Path) -> None:
    write(repo, {**data_files(8), "a.py": "", "b.md": ""})
    text = draft_config(repo)
    policy = text[text.index("\n  categories:\n") : text.index("\n# What DIMS measures.")].strip().splitlines()[1:]
    assert [line for line in policy if "#" not in line] == []
    config = drafted(repo)
    for name in config.metrics:
        found = config.policy_of(name)
        assert (found.direction, found.critical) == ("down", name.startswith(("data.", "project."))), name
        assert found.min_abs > 0, name


# --- configurations that exist --------------------------------------------------------------------------

TWO = """sources: {p: {type: files, path: .}}
metrics: {m: {a: {source: p, measure: count}, b: {source: p, measure: bytes}}}
"""


@pytest.mark.parametrize("arguments", [(), ("--force",)])
def test_init_does_not_hide_a_configuration_in_config(arguments: tuple[str, ...], dims: Dims, folder: Path) -> None:
    write(folder, {"config/dims.yaml": TWO})
    result = dims("init", *arguments)
    assert (result.code, result.out) == (2, "")
    assert f"{folder / 'config/dims.yaml'} already configures DIMS here (2 metrics of 1 source)." in result.err
    assert "Add to that file what you need from `dims init --print`, or move that file away first." in result.err
    assert not (folder / "dims.yaml").exists()
    assert not (folder / ".gitignore").exists()


@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize("name", ["other.yaml", "dims.yaml", "conf/my.yaml"])
def test_init_does_not_replace_a_file_that_is_named(by: str, name: str, dims: Dims, folder: Path) -> None:
    write(folder, {name: TWO})
    named: tuple[str, ...] = ("--config", name) if by == "option" else ()
    result = dims(*named, "init", env={} if named else {"DIMS_CONFIG": name})
    assert result.code == 2
    assert f"{folder / name} already exists (2 metrics of 1 source)." in result.err
    assert (folder / name).read_text() == TWO


def test_init_writes_the_file_that_is_named(dims: Dims, folder: Path) -> None:
    write(folder, {"config/.keep": ""})
    result = dims("init", env={"DIMS_CONFIG": "config/dims.yaml"})
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("wrote config/dims.yaml: 5 metrics of 2 sources\n")
    assert load_config(None, {}, folder).file == folder / "config" / "dims.yaml"


@pytest.mark.parametrize(("where", "target"), [("config/dims.yaml", "dims.yaml"), ("dims.yaml", "config/dims.yaml")])
def test_a_named_file_hides_no_other_default_file(where: str, target: str, dims: Dims, folder: Path) -> None:
    write(folder, {where: TWO, "config/.keep": ""})
    for force in ((), ("--force",)):
        result = dims("--config", target, "init", *force)
        assert result.code == 2
        assert f"{folder / where} already configures DIMS here (2 metrics of 1 source)." in result.err
        assert not (folder / target).exists()


def test_init_in_a_folder_below_needs_force_and_says_what_it_hides(
    dims: Dims, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"config/dims.yaml": TWO, "sub/a.csv": "1"})
    monkeypatch.chdir(folder / "sub")
    result = dims("init")
    assert result.code == 2
    assert f"{folder / 'config/dims.yaml'} already configures DIMS here (2 metrics of 1 source)." in result.err
    result = dims("init", "--force")
    assert result.code == 0
    expected = f"in {folder / 'sub'}, DIMS now reads this file instead of {folder / 'config/dims.yaml'} (2 metrics of 1"
    assert expected in result.out


def test_init_names_an_existing_file_that_is_not_valid(dims: Dims, folder: Path) -> None:
    write(folder, {"config/dims.yaml": "metrics: 3\n"})
    result = dims("init")
    assert result.code == 2
    assert "config/dims.yaml already configures DIMS here (which is not valid)" in result.err


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_init_writes_through_no_broken_link_and_replaces_no_folder(kind: str, dims: Dims, folder: Path) -> None:
    place = folder / "dims.yaml"
    place.symlink_to(folder / "gone.yaml") if kind == "link" else place.mkdir()
    for arguments in ((), ("--force",)):
        assert dims("init", *arguments).code == 2
    assert not (folder / "gone.yaml").exists()


def test_print_shows_what_init_would_write_and_writes_nothing(dims: Dims, folder: Path) -> None:
    write(folder, {"config/dims.yaml": TWO, "a.csv": "1"})
    result = dims("init", "--print")
    assert (result.code, result.err) == (0, "")
    assert result.out == draft_config(folder)
    assert not (folder / "dims.yaml").exists()


def test_config_check_warns_that_one_file_hides_the_other(dims: Dims, folder: Path) -> None:
    write(folder, {"dims.yaml": TWO, "config/dims.yaml": TWO})
    fix = "fix: Move what you need into one of the two files, and delete or rename the other.\n"
    one, other = folder / "dims.yaml", folder / "config/dims.yaml"
    result = dims("config", "check")
    assert result.code == 0
    assert f"warning: {one} hides {other} (2 metrics of 1 source): DIMS reads only the first\n{fix}" in result.out
    result = dims("--config", "config/dims.yaml", "config", "check")
    hidden = f"warning: {one} (2 metrics of 1 source) hides {other}, unless --config or DIMS_CONFIG names that file\n"
    assert hidden + fix in result.out


@pytest.mark.parametrize("kind", ["link", "included", "alone"])
def test_two_files_of_one_configuration_hide_nothing(kind: str, dims: Dims, folder: Path) -> None:
    sources, metrics = TWO.splitlines(keepends=True)
    write(folder, {"config/dims.yaml": metrics if kind == "included" else TWO})
    if kind == "link":
        (folder / "dims.yaml").symlink_to(folder / "config" / "dims.yaml")
    elif kind == "included":
        write(folder, {"dims.yaml": f"include: config/dims.yaml\n{sources}"})
    result = dims("config", "check")
    assert result.code == 0
    assert "hides" not in result.out


def test_doctor_warns_that_one_file_hides_the_other(folder: Path) -> None:
    from dims_worker.checks.config_files import config_file_checks

    write(folder, {"dims.yaml": TWO, "config/dims.yaml": TWO})
    (check,) = config_file_checks(load_config(None, {}, folder), {})
    assert (check.state, check.name) == ("warning", "configuration_file")
    assert "(2 metrics of 1 source)" in check.summary
    assert check.fix
    (folder / "dims.yaml").unlink()
    assert list(config_file_checks(load_config(None, {}, folder), {})) == []
