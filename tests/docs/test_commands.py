"""Every command and option that a page names exists, and the reference names them all."""

from __future__ import annotations

import click
import pytest

from dims_producers import enqueue
from dims_worker.cli.main import SECTIONS, cli
from dims_worker.cli.workflow import ALIASES
from dims_worker.config import WORKFLOW_NAMES
from tests.docs.pages import OLD, OPTION, TEXTS, TREE, calls, each_page, needs_subcommand, resolve, sections, spans

HELP = {"--help", "-h"}


def options(command: click.Command) -> set[str]:
    """Return the options of a command, long and short, `--help` included."""
    context = click.Context(command, help_option_names=cli.context_settings["help_option_names"])
    parameters = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    return {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}


ANY = set().union(*map(options, TREE.values()))


@each_page
def test_each_command_that_a_page_names_exists_with_its_options(page: str) -> None:
    wrong = []
    for call in calls(TEXTS[page]):
        name = resolve(call)
        old = page != "docs/quick_reference.md" and name in OLD
        if name is None or old or not set(OPTION.findall(call)) <= options((TREE | OLD)[name]) | options(cli) | HELP:
            wrong.append(call)
    assert not wrong


def test_every_command_has_its_section_in_the_groups_of_the_help() -> None:
    groups = sections(TEXTS["docs/commands.md"], 2)
    named = {title: [name.removeprefix("dims ") for name in sections(groups[title], 3)] for title in groups}
    assert {title: list(commands) for title, commands in SECTIONS.items()} == {t: n for t, n in named.items() if n}


@pytest.mark.parametrize("name", [name for name in TREE if name])
def test_every_command_and_option_is_named_and_no_other(name: str) -> None:
    top = name.split(maxsplit=1)[0]
    section = sections(TEXTS["docs/commands.md"], 3)[f"dims {top}"]
    assert f"dims {name}" in " ".join(section.split())
    bare = " ".join(span for span in spans(section) if not span.startswith("dims"))
    known = set().union(*(options(command) for key, command in TREE.items() if key.split()[:1] == [top]))
    mentioned = set(OPTION.findall(bare)) | {option for call in calls(section) for option in OPTION.findall(call)}
    assert options(TREE[name]) - HELP <= mentioned
    assert set(OPTION.findall(bare)) <= known | HELP


def test_options_before_the_first_command_exist() -> None:
    intro = TEXTS["docs/commands.md"].partition("\n### ")[0]
    named = {option for span in spans(intro) for option in OPTION.findall(span)}
    assert options(cli) <= named
    assert named <= ANY


def test_the_options_of_dims_enqueue_are_in_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        enqueue.main(["--help"])
    known = set(OPTION.findall(capsys.readouterr().out)) - HELP
    (section,) = [body for title, body in sections(TEXTS["docs/producers.md"], 2).items() if "dims-enqueue" in title]
    table = "\n".join(line for line in section.splitlines() if line.startswith("| `--"))
    assert set(OPTION.findall(" ".join(spans(table)))) == {option for option in known if option.startswith("--")}


@pytest.mark.parametrize("name", WORKFLOW_NAMES)
def test_every_workflow_is_named_where_commands_are(name: str) -> None:
    for page in ("docs/commands.md", "docs/workflows.md"):
        assert name in TEXTS[page]
    assert any(call.split()[:2] == ["workflow", name] for call in calls(TEXTS["docs/quick_reference.md"]))


def test_the_quick_reference_names_every_command() -> None:
    named = {name for call in calls(TEXTS["docs/quick_reference.md"]) if (name := resolve(call))}
    assert {name for name in TREE if name and not needs_subcommand(name)} <= named


def test_the_quick_reference_lists_every_old_name() -> None:
    _, _, section = TEXTS["docs/quick_reference.md"].partition("## The old names")
    listed = {resolve(call) for call in calls(section)}
    assert set(OLD) <= listed
    assert all(f"`dims workflow {number}`" in section for number in ALIASES if number.isdigit())


def test_a_call_is_resolved_to_its_command() -> None:
    assert resolve("events show ID") == "events show"
    assert resolve("verify --json") == "verify"
    assert resolve("config nothing") is None  # it needs a subcommand of its own
    assert resolve("nothing at all") is None
