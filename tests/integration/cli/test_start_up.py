"""What a command loads before it answers."""

from __future__ import annotations

import re

from tests.conftest import Project


def test_a_command_whose_database_is_named_loads_no_migrations(project: Project) -> None:
    project.write({"dims.yaml": "sources: {tree: {type: files, path: .}}\n"})
    project.env["PYTHONPROFILEIMPORTTIME"] = "1"
    told = project.dims("events", "--json", check=True).stderr
    loaded = {name.partition(".")[0] for name in re.findall(r"\| +(\S+)$", told, re.MULTILINE)}
    assert "sqlalchemy" in loaded  # so the rest of what is loaded is told, too
    assert not loaded & {"alembic", "celery", "boto3", "starlette", "pandas"}
