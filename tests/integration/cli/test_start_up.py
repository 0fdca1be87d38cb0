"""Test which modules a command imports."""

from __future__ import annotations

import re

from tests.conftest import Project


def test_a_command_with_its_own_database_imports_no_migrations(project: Project) -> None:
    project.write({"dims.yaml": "sources: {tree: {type: files, path: .}}\n"})
    project.env["PYTHONPROFILEIMPORTTIME"] = "1"
    profile = project.dims("events", "--json", check=True).stderr
    loaded = {name.partition(".")[0] for name in re.findall(r"\| +(\S+)$", profile, re.MULTILINE)}
    assert "sqlalchemy" in loaded  # so the profile lists the imports
    assert not loaded & {"alembic", "celery", "boto3", "starlette", "pandas"}
