"""Define `dims doctor`: run every check, and show a fix for each that fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
from rich.text import Text

from dims_worker.checks import Check, worst_state
from dims_worker.checks.doctor import doctor_checks
from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.formatting import escape_control, pluralize

EXIT_CODES = {"ok": 0, "warning": 1, "problem": 3}
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
NAME_WIDTH = 24
"""The most columns of the names. A longer one moves its own line."""


@click.command()
@examples("dims doctor", "dims doctor --json | jq '.checks[] | select(.state != \"ok\")'")
@json_option
@pass_session
def doctor(session: Session, as_json: bool) -> None:
    """Run every check, and show how to fix what is wrong.

    DIMS checks what runs, sends one cheap request to each source with its credentials, checks that hooks, notifications
    and watchers report changes, and checks what is installed on this host. It changes nothing, and ends within 20
    seconds, even if a server hangs.

    The exit code is 3 if there is a problem, 1 if there are only warnings, and 0 if all is well.
    """
    groups = doctor_checks(session.config, session.env)
    checks = [check for members in groups.values() for check in members]
    if as_json:
        session.print_json(_document(groups, checks))
    else:
        _print(session, groups)
        session.print_text(_verdict(checks), STYLES[worst_state(checks)])
    exit_with(EXIT_CODES[worst_state(checks)])


def _document(groups: Mapping[str, Sequence[Check]], checks: Sequence[Check]) -> dict[str, object]:
    """Return the JSON document. docs/operations.md describes its keys."""
    return {
        "state": worst_state(checks),
        "counts": {state: sum(check.state == state for check in checks) for state in EXIT_CODES},
        "checks": [
            {"group": group, **{key: getattr(check, key) for key in ("name", "state", "summary", "fix")}}
            for group, members in groups.items()
            for check in members
        ],
    }


def _print(session: Session, groups: Mapping[str, Sequence[Check]]) -> None:
    names = [check.name for members in groups.values() for check in members]
    width = min(NAME_WIDTH, max(map(len, names), default=0))
    for group, members in groups.items():
        if not members:
            continue
        session.print_text(group, "bold")
        for check in members:
            word = (f"{check.state:<8}", STYLES[check.state])
            line = Text.assemble(
                "  ", word, f" {check.name.replace('_', ' '):<{width}}  ", escape_control(check.summary)
            )
            session.out.print(line, soft_wrap=True)
            if check.state != "ok":
                for number, fix in enumerate(check.fix.splitlines()):
                    session.out.print(
                        Text(f"{'':11}{'fix:' if number == 0 else '    '} {escape_control(fix)}"), soft_wrap=True
                    )
        session.out.print()


def _verdict(checks: Sequence[Check]) -> str:
    counts = {state: sum(check.state == state for check in checks) for state in ("problem", "warning")}
    found = [pluralize(count, state) for state, count in counts.items() if count]
    return f"{' and '.join(found)} in {len(checks)} checks" if found else f"all {len(checks)} checks passed"
