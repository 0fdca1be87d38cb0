"""The documents against the project: links, examples, commands, options, keys, event types, containers. No servers."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from dims_producers import enqueue
from dims_producers.s3_record import event_of_record
from dims_worker import events
from dims_worker.broker.queues import VERIFY
from dims_worker.cli.main import SECTIONS, cli
from dims_worker.config import (
    WORKFLOW_NAMES,
    Config,
    load_config,
    metrics,
    notifications,
    policy,
    rules,
    settings,
    sources,
    web,
    workflows,
)
from dims_worker.events import Event
from dims_worker.local import procfile
from tests.fixtures.s3_notifications import record

REPO = Path(__file__).parents[2]
DOCS = sorted((REPO / "docs").glob("*.md"))
PAGES = [REPO / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + DOCS
TEXTS = {page.relative_to(REPO).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
each_page = pytest.mark.parametrize("page", TEXTS)

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of a language; one that is marked as a fragment has another."""
    return [body for language, body in _FENCE.findall(text) if language.strip() in languages]


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in _SPAN.findall(prose(text))]


def code(text: str) -> list[str]:
    """All that is set as code: spans and blocks, but for YAML and JSON."""
    return [*spans(text), *(body for language, body in _FENCE.findall(text) if language[:4] not in ("yaml", "json"))]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    titles = [title for _, title in _HEADING.findall(prose(text))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def sections(text: str, level: int) -> dict[str, str]:
    """Title -> text, of the headings of this level; a deeper heading belongs to its section."""
    found: dict[str, str] = {}
    title = ""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else _HEADING.match(line)
        if heading and len(heading[1]) <= level:
            title = heading[2] if len(heading[1]) == level else ""
        if title:
            found[title] = f"{found.get(title, '')}{line}\n"
    return found


# --- links and names ----------------------------------------------------------------------------------


@each_page
def test_links_pictures_and_anchors_resolve(page: str) -> None:
    broken = []
    for target in _LINK.findall(prose(TEXTS[page])):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = ((REPO / page).parent / name).resolve() if name else REPO / page
        there = file.is_relative_to(REPO) and file.exists()
        if not there or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert not broken


def test_the_readme_links_every_guide() -> None:
    linked = set(_LINK.findall(TEXTS["README.md"]))
    assert {page.relative_to(REPO).as_posix() for page in DOCS} <= linked


def test_the_index_lists_every_guide() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", TEXTS["docs/README.md"]))
    assert listed == {page.name for page in DOCS} - {"README.md"}


def test_every_message_that_a_symptom_quotes_is_one_of_the_code() -> None:
    code = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8"))
        for package in ("dims_worker", "producers")
        for file in sorted((REPO / package).rglob("*.py"))
    )
    symptoms = [row[0] for row in _rows(TEXTS["docs/troubleshooting.md"], "symptom")]
    assert len(symptoms) > 40
    quoted = [span for symptom in symptoms for span in _SPAN.findall(symptom)]
    assert [span for span in quoted if not _says(code, span)] == []


def _says(code: str, span: str) -> bool:
    """Whether the code says these words; the numbers are filled in."""
    parts = [re.escape(part) for part in re.split(r"\b\d+\b", span) if part.strip()]
    return re.search(r"[^\n]*".join(parts), code) is not None


@each_page
def test_no_page_names_a_place_of_one_machine_or_a_registry(page: str) -> None:
    assert not re.findall(r"(?<![\w.])/(?:root|home|work|tmp|Users)\b[^\s`]*", TEXTS[page])
    assert not re.findall(r"pypi\.|pythonhosted|npmjs|proxy\.golang", TEXTS[page])


# --- examples -----------------------------------------------------------------------------------------

CONFIGURATIONS = [(page, number, text) for page in TEXTS for number, text in enumerate(blocks(TEXTS[page], "yaml"))]


@pytest.mark.parametrize(("page", "number", "text"), CONFIGURATIONS, ids=[f"{p}-{n}" for p, n, _ in CONFIGURATIONS])
def test_each_configuration_passes_the_check(page: str, number: int, text: str, tmp_path: Path) -> None:
    (tmp_path / "dims.yaml").write_text(text, encoding="utf-8")
    load_config(None, {}, tmp_path)  # raises with every problem: file, line, key


def test_the_guide_to_the_configuration_has_whole_examples() -> None:
    assert len(blocks(TEXTS["docs/configuration.md"], "yaml")) >= 3
    assert blocks(TEXTS["README.md"], "yaml")


KIND_OF_SECTION = {
    "Files": "files",
    "Commits": "git",
    "Objects": "s3",
    "Databases": "sql",
    "AWS": "aws",
    "Programs": "command",
}


def _loaded(text: str, folder: Path) -> Config:
    (folder / "dims.yaml").write_text(text, encoding="utf-8")
    return load_config(None, {}, folder)


@pytest.mark.parametrize("title", KIND_OF_SECTION)
def test_each_kind_has_an_example_that_measures_it(title: str, tmp_path: Path) -> None:
    section = sections(TEXTS["docs/metrics.md"], 2)[title]
    examples = [_loaded(text, tmp_path) for text in blocks(section, "yaml")]
    assert examples
    for config in examples:
        kinds = {config.sources[source].type for source, read in config.of_source.items() if read}
        assert KIND_OF_SECTION[title] in kinds


def test_every_kind_and_the_derived_have_a_section(tmp_path: Path) -> None:
    assert set(KIND_OF_SECTION.values()) == set(sources.SOURCES) == set(metrics.METRICS)
    (text,) = blocks(sections(TEXTS["docs/metrics.md"], 2)["Derived"], "yaml")
    assert _loaded(text, tmp_path).derived


@pytest.mark.parametrize("measure", ["missing_days", "completeness", "sync_status"])
def test_the_measures_of_objects_with_keys_of_their_own_have_examples(measure: str, tmp_path: Path) -> None:
    (text,) = blocks(sections(TEXTS["docs/metrics.md"], 3)[measure], "yaml")
    assert {getattr(one, "measure", None) for one in _loaded(text, tmp_path).metrics.values()} == {measure}


@pytest.mark.parametrize("name", WORKFLOW_NAMES)
def test_each_workflow_has_an_example_that_configures_it(name: str, tmp_path: Path) -> None:
    examples = blocks(sections(TEXTS["docs/workflows.md"], 2)[name], "yaml")
    assert any(name in _loaded(text, tmp_path).configured_workflows for text in examples)


JSON = [(page, number, text) for page in TEXTS for number, text in enumerate(blocks(TEXTS[page], "json"))]


@pytest.mark.parametrize(("page", "number", "text"), JSON, ids=[f"{p}-{n}" for p, n, _ in JSON])
def test_each_document_in_json_is_json(page: str, number: int, text: str) -> None:
    assert isinstance(json.loads(text), dict)


@each_page
def test_each_envelope_is_taken(page: str) -> None:
    text = TEXTS[page]
    envelopes = [body for body in blocks(text, "json") if "specversion" in body]
    envelopes += re.findall(r"'(\{\"specversion\".*?\})'", text)
    for envelope in envelopes:
        assert Event.from_json(envelope).type in _event_types()
    assert envelopes or page not in ("docs/events.md", "docs/producers.md", "docs/flow.md")


def _event_types() -> set[str]:
    values = [getattr(events, name) for name in dir(events) if name.isupper()]
    return {value for value in values if isinstance(value, str) and re.fullmatch(r"dims(\.\w+){2}", value)}


def test_the_guide_to_events_has_a_row_for_every_type_and_no_other() -> None:
    rows = _rows(sections(TEXTS["docs/events.md"], 2)["Types"], "type")
    told = {_SPAN.findall(row[0])[0] for row in rows if _SPAN.findall(row[0])}
    assert {name for name in told if name.startswith("dims.")} == _event_types()
    assert [name for name in told if not name.startswith("dims.")] == ["com.amazonaws.s3.ObjectCreated:Put"]


@each_page
def test_every_event_type_that_a_page_names_exists(page: str) -> None:
    types = _event_types()
    groups = "|".join({name.split(".")[1] for name in types})
    assert set(re.findall(rf"\bdims\.(?:{groups})\.[a-z]+", TEXTS[page])) <= types
    assert all(name.startswith(events.S3_PREFIX) for name in re.findall(r"\bcom\.amazonaws[\w.:]+", TEXTS[page]))


def test_the_data_of_objects_that_is_told_is_what_the_lambda_sends() -> None:
    (row,) = [row for row in _rows(sections(TEXTS["docs/events.md"], 2)["Types"], "type") if "ObjectCreated" in row[0]]
    restored = {"lifecycleRestorationExpiryTime": "2026-11-29T00:00:00Z", "lifecycleRestoreStorageClass": "GLACIER"}
    tier = {"intelligentTieringEventData": {"destinationAccessTier": "ARCHIVE_ACCESS"}}
    given = record(versionId="1") | tier | {"glacierEventData": {"restoreEventData": restored}}
    assert set(_SPAN.findall(row[2])) == set(event_of_record(given, datetime.now(UTC)).data)


def test_the_bounds_of_an_event_that_are_told_are_the_bounds() -> None:
    bounds = [row[1] for row in _rows(sections(TEXTS["docs/events.md"], 2)["What is refused"], "reason") if row[1]]
    assert bounds == [
        f"{events.MAX_BYTES:,} bytes",
        f"{events.MAX_TEXT:,} characters",
        f"{events.YEARS.start} to {events.YEARS.stop - 1}",
        f"{events.MAX_DEPTH} levels",
    ]


# --- commands -----------------------------------------------------------------------------------------


def tree() -> dict[str, click.Command]:
    """Every command by its full name, `approvals list`; the root is empty."""
    found: dict[str, click.Command] = {}

    def walk(command: click.Command, name: str) -> None:
        found[name] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                grown = command.get_command(context, child)
                assert grown is not None
                walk(grown, f"{name} {child}".strip())

    walk(cli, "")
    return found


TREE = tree()


def options(command: click.Command) -> set[str]:
    """What may be written with it, long and short, `--help` included."""
    context = click.Context(command, **{k: v for k, v in cli.context_settings.items() if k == "help_option_names"})
    return {name for parameter in command.get_params(context) if isinstance(parameter, click.Option)
            for name in (*parameter.opts, *parameter.secondary_opts)}  # fmt: skip


ANY = set().union(*map(options, TREE.values()))
HELP = {"--help", "-h"}


def resolve(words: str) -> str | None:
    """The full name of the command that a line begins with, `events show ID` -> `events show`; None: there is none."""
    name = ""
    for word in words.split():
        longer = f"{name} {word}".strip()
        if longer not in TREE:
            placeholder = not re.fullmatch(r"[a-z]+", word)
            return name if placeholder or (name and not _needs_subcommand(name)) else None
        name = longer
    return name


def _needs_subcommand(name: str) -> bool:
    command = TREE[name]
    return isinstance(command, click.Group) and not command.invoke_without_command


def calls(text: str) -> Iterator[str]:
    """What follows `dims ` wherever it is set as code."""
    for one in code(text):
        yield from (found.strip() for found in re.findall(r"(?<![\w.\-/:])dims ([^\n&|#;`]*)", one))


@each_page
def test_each_command_that_a_page_names_exists_with_its_options(page: str) -> None:
    wrong = []
    for call in calls(TEXTS[page]):
        name = resolve(call)
        if name is None or not set(_OPTION.findall(call)) <= options(TREE[name]) | options(cli) | HELP:
            wrong.append(call)
    assert not wrong


def test_every_command_has_its_section_in_the_groups_of_the_help() -> None:
    text = TEXTS["docs/commands.md"]
    groups = sections(text, 2)
    told = {title: [name.removeprefix("dims ") for name in sections(groups[title], 3)] for title in groups}
    assert {title: list(commands) for title, commands in SECTIONS.items()} == {t: told[t] for t in told if told[t]}


@pytest.mark.parametrize("name", [name for name in TREE if name])
def test_every_command_and_option_is_told_and_no_other(name: str) -> None:
    top = name.split(maxsplit=1)[0]
    section = sections(TEXTS["docs/commands.md"], 3)[f"dims {top}"]
    assert f"dims {name}" in " ".join(section.split())
    bare = " ".join(span for span in spans(section) if not span.startswith("dims"))
    known = set().union(*(options(one) for key, one in TREE.items() if key.split()[:1] == [top]))
    mentioned = set(_OPTION.findall(bare)) | {o for call in calls(section) for o in _OPTION.findall(call)}
    assert options(TREE[name]) - HELP <= mentioned
    assert set(_OPTION.findall(bare)) <= known | HELP


def test_options_before_the_first_command_exist() -> None:
    intro = TEXTS["docs/commands.md"].partition("\n### ")[0]
    named = {option for span in spans(intro) for option in _OPTION.findall(span)}
    assert options(cli) <= named
    assert named <= ANY


def test_the_options_of_dims_enqueue_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        enqueue.main(["--help"])
    known = set(_OPTION.findall(capsys.readouterr().out)) - HELP
    section = sections(TEXTS["docs/producers.md"], 2)["dims-enqueue"]
    table = "\n".join(line for line in section.splitlines() if line.startswith("| `--"))
    assert set(_OPTION.findall(" ".join(spans(table)))) == {option for option in known if option.startswith("--")}


# --- keys of the configuration ------------------------------------------------------------------------


def _own(model: type[BaseModel], *without: type[BaseModel]) -> set[str]:
    return set(model.model_fields).difference(*(other.model_fields for other in without))


KEYS: dict[tuple[str, str], set[str]] = {
    ("settings", "key"): _own(settings.Settings),
    ("policy", "key"): _own(policy.PolicySection),
    ("Every source", "key"): _own(sources.Source),
    **{(f"type: {kind}", "key"): _own(model, sources.Source) for kind, model in sources.SOURCES.items()},
    ("Every metric", "key"): _own(metrics.Metric, policy.Policy),
    ("Of files", "key"): _own(metrics.FilesMetric, metrics.SourceMetric),
    ("Of objects", "key"): _own(metrics.S3Metric, metrics.SourceMetric),
    ("Of commits", "key"): _own(metrics.GitMetric, metrics.SourceMetric),
    ("Of databases", "key"): _own(metrics.SqlMetric, metrics.SourceMetric),
    ("Of an account", "key"): _own(metrics.AwsMetric, metrics.SourceMetric),
    ("Of programs", "key"): _own(metrics.CommandMetric, metrics.SourceMetric),
    ("completeness", "in `expected`, of a query"): _own(metrics.ExpectedQuery),
    ("completeness", "in `expected`, of objects"): _own(metrics.ExpectedObjects),
    ("sync_status", "in `pairs`"): _own(metrics.Pair),
    ("derive", "key"): _own(metrics.DerivedMetric, metrics.Metric),
    ("rules", "key"): _own(rules.Rule),
    ("notify", "key of a channel"): _own(notifications.Channel),
    ("web", "key"): _own(web.WebSection),
    ("web", "key of `proxy`"): _own(web.ProxySignIn),
    ("Every workflow", "key"): _own(workflows.WorkflowConfig),
    ("file-inventory", "key"): _own(workflows.FileInventoryConfig, workflows.WorkflowConfig),
    ("local-inventory", "key"): _own(workflows.LocalInventoryConfig, workflows.WorkflowConfig),
    ("local-inventory", "key of a folder"): _own(workflows.LocalFolder),
    ("gap-analysis", "key"): _own(workflows.GapAnalysisConfig, workflows.WorkflowConfig),
    ("gap-analysis", "key of a feed"): _own(workflows.Feed),
    ("aws-inventory", "key"): _own(workflows.AwsInventoryConfig, workflows.WorkflowConfig),
    ("sync-status", "key"): _own(workflows.SyncStatusConfig, workflows.WorkflowConfig),
    ("audit", "key"): _own(workflows.AuditConfig, workflows.WorkflowConfig),
}
MEASURES: dict[str, type[metrics.SourceMetric]] = {
    "Of files": metrics.FilesMetric,
    "Of objects": metrics.S3Metric,
    "Of commits": metrics.GitMetric,
    "Of databases": metrics.SqlMetric,
    "Of an account": metrics.AwsMetric,
    "Of programs": metrics.CommandMetric,
}
DEFAULTS: dict[tuple[str, str], type[BaseModel]] = {
    ("settings", "key"): settings.Settings,
    ("policy", "key"): policy.PolicySection,
    ("Every source", "key"): sources.Source,
    **{(f"type: {kind}", "key"): model for kind, model in sources.SOURCES.items()},
    ("Every metric", "key"): metrics.Metric,
    **{(title, "key"): model for title, model in MEASURES.items()},
    ("notify", "key of a channel"): notifications.Channel,
    ("web", "key"): web.WebSection,
    ("Every workflow", "key"): workflows.WorkflowConfig,
    ("file-inventory", "key"): workflows.FileInventoryConfig,
    ("local-inventory", "key"): workflows.LocalInventoryConfig,
    ("local-inventory", "key of a folder"): workflows.LocalFolder,
    ("gap-analysis", "key"): workflows.GapAnalysisConfig,
    ("gap-analysis", "key of a feed"): workflows.Feed,
    ("aws-inventory", "key"): workflows.AwsInventoryConfig,
}
GUIDES = ("docs/configuration.md", "docs/metrics.md", "docs/workflows.md")


def _guide(title: str) -> str:
    """The one section of the guides with this title."""
    (found,) = (there[title] for name in GUIDES for level in (2, 3) if title in (there := sections(TEXTS[name], level)))
    return found


def _rows(section: str, header: str) -> list[list[str]]:
    """The rows, as cells, of the tables whose first column is called `header`."""
    rows, here = [], False
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        here = bool(cells) and (here or cells[0] == header)
        if here and cells[0] != header and not cells[0].startswith("---"):
            rows.append(cells)
    return rows


@pytest.mark.parametrize(("title", "header"), KEYS)
def test_each_section_tells_every_key_and_no_other(title: str, header: str) -> None:
    told = [key for row in _rows(_guide(title), header) for key in _SPAN.findall(row[0])]
    assert sorted(told) == sorted(KEYS[title, header])


@pytest.mark.parametrize("title", MEASURES)
def test_each_kind_tells_every_measure_with_its_unit(title: str) -> None:
    model = MEASURES[title]
    told = {measure: row[1].strip("`") for row in _rows(_guide(title), "measure") for measure in _SPAN.findall(row[0])}
    measures = get_args(model.model_fields["measure"].annotation)
    assert told == {measure: model.default_units.get(measure, "") for measure in measures}


@pytest.mark.parametrize(("title", "header"), DEFAULTS)
def test_the_defaults_that_are_told_are_the_defaults(title: str, header: str) -> None:
    """Those that are told as code; the others are words."""
    fields = DEFAULTS[title, header].model_fields
    told, true = {}, {}
    for keys, default, *_ in _rows(_guide(title), header):
        if re.fullmatch(r"`[^`]+`", default) and (title, keys) != ("Every source", "`queue`"):
            for key in _SPAN.findall(keys):
                field = fields[key]
                kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
                told[key] = TypeAdapter(kind).validate_python(yaml.safe_load(default.strip("`")))
                true[key] = field.get_default(call_default_factory=True)
    assert told == true


def test_the_default_queue_is_the_one_of_the_workers() -> None:
    (default,) = [row[1] for row in _rows(_guide("Every source"), "key") if row[0] == "`queue`"]
    assert default == f"`{VERIFY}`"


@pytest.mark.parametrize("name", WORKFLOW_NAMES)
def test_every_workflow_is_told_where_commands_are(name: str) -> None:
    for page in ("docs/commands.md", "docs/workflows.md"):
        assert name in TEXTS[page]
    assert any(call.split()[:2] == ["workflow", name] for call in calls(TEXTS["docs/quick_reference.md"]))


def test_the_quick_reference_names_every_command() -> None:
    named = {name for call in calls(TEXTS["docs/quick_reference.md"]) if (name := resolve(call))}
    assert {name for name, command in TREE.items() if name and not _needs_subcommand(name)} <= named


# --- containers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))


def test_compose_has_the_services_and_publishes_on_this_machine_alone(compose: Any) -> None:
    assert {"postgres", "valkey", "worker", "beat", "flower", "web"} <= compose["services"].keys()
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
    for service in compose["services"].values():
        assert "network_mode" not in service


@pytest.mark.parametrize("name", ["worker", "beat", "flower", "web"])
def test_compose_runs_what_the_procfile_runs(compose: Any, name: str) -> None:
    entries = {entry.name: entry for entry in procfile.parse((REPO / "Procfile").read_text(encoding="utf-8"))}
    own = re.compile(r"\S*beat-schedule|(?<=--conf=)\S+")  # where a container's place is another's
    words = [compose["services"][name]["command"], list(entries[name].words)]
    theirs, ours = ([own.sub("", word) for word in one] for one in words)
    assert theirs == ours


def test_compose_and_the_programs_of_the_procfile_are_words_not_shell() -> None:
    for line in procfile.parse((REPO / "Procfile").read_text(encoding="utf-8")):
        assert shlex.join(line.words)
        assert not set(" ".join(line.words)) & set("|;&<>`")


def test_docker_accepts_the_composition() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("`docker compose` is not installed here, so it was not asked about docker-compose.yml")
    secrets = {"DIMS_POSTGRES_PASSWORD": "a", "DIMS_VALKEY_PASSWORD": "b", "DIMS_FLOWER_AUTH": "c:d"}
    env = {**secrets, "PATH": "/usr/bin:/bin:/usr/local/bin"}
    done = subprocess.run([docker, "compose", "config", "--quiet"], cwd=REPO, env=env, capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
