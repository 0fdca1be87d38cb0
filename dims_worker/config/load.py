"""Load the configuration files and the environment into a Config, or raise one error that lists every problem."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from dims_worker.config.file import ConfigFile, PriceTable
from dims_worker.config.maintenance import MaintenanceWindow
from dims_worker.config.metrics import METRICS, DerivedMetric, Metric
from dims_worker.config.notifications import Channel, NotifySection
from dims_worker.config.policy import PolicySection
from dims_worker.config.references import check_references, unknown_name_error
from dims_worker.config.rules import Rule
from dims_worker.config.runtime import Config
from dims_worker.config.settings import Settings
from dims_worker.config.sources import SOURCES, Source
from dims_worker.config.web import WebSection
from dims_worker.config.workflows import WorkflowsSection
from dims_worker.config.yaml_document import Problem, Where, YamlDocument
from dims_worker.errors import ConfigError

DEFAULT_FILES = ("dims.yaml", "config/dims.yaml")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_M = TypeVar("_M", bound=BaseModel)


class InvalidConfig(ConfigError):
    """The configuration is not valid. `problems` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


def find_config(path: Path | None, env: Mapping[str, str], cwd: Path) -> Path:
    """Return `path` (`--config`), else DIMS_CONFIG, else the first default file in `cwd` or a folder above it.

    The search ends at the root of a git repository. Raises ConfigError if there is no file.
    """
    explicit = path or (Path(env["DIMS_CONFIG"]) if env.get("DIMS_CONFIG") else None)
    if explicit:
        return cwd / explicit
    for folder in (cwd, *cwd.parents):
        for name in DEFAULT_FILES:
            if (folder / name).is_file():
                return folder / name
        if (folder / ".git").exists():
            break
    raise ConfigError("no dims.yaml in this folder or above it. Create one with `dims init`, or name it with --config.")


def project_of(file: Path) -> Path:
    """Return the folder that relative paths of a configuration file start in."""
    return file.parent.parent if file.parent.name == "config" else file.parent


def load_config(path: Path | None, env: Mapping[str, str], cwd: Path) -> Config:
    """Return the configuration. Raises InvalidConfig with every problem: file, line, key and what is wrong."""
    file = find_config(path, env, cwd).resolve()
    if not file.is_file():
        raise ConfigError(f"{file}: no such file. Check --config and DIMS_CONFIG, or create one with `dims init`.")
    project = project_of(file)
    document = YamlDocument(env)
    document.read(file, _display_path(file, cwd))
    includes = _texts(document, ("include",))
    for name in includes:
        document.read(file.parent / name, _display_path(file.parent / name, cwd))
    tree = document.tree
    for key in tree.keys() - ConfigFile.model_fields.keys():
        document.blame((key,), _unknown_key_error(key, ConfigFile.model_fields))
    sources = _sources(document)
    config = Config(
        file=file,
        files=(file, *(file.parent / name for name in includes)),
        project=project,
        home=(cwd / Path(env["DIMS_HOME"]).expanduser() if env.get("DIMS_HOME") else project / ".dims"),
        sources=sources,
        metrics=_metrics(document, sources),
        rules={
            name: rule for name in _mapping(document, ("rules",)) if (rule := _model(document, Rule, ("rules", name)))
        },
        watch=tuple(_texts(document, ("watch",))),
        policy=_model(document, PolicySection, ("policy",)) or PolicySection(),
        settings=_model(document, Settings, ("settings",)) or Settings(),
        prices=table.prices if (table := _model(document, PriceTable, (), only=("prices",))) else {},
        workflows=_model(document, WorkflowsSection, ("workflows",)) or WorkflowsSection(),
        notify=_notify(document),
        maintenance=_maintenance(document),
        web=_model(document, WebSection, ("web",)) or WebSection(),
        database_url=_database_url(env.get("DIMS_DATABASE_URL") or None),
        broker_url=env.get("DIMS_BROKER_URL") or None,
    )
    check_references(document, config)
    if document.problems:
        raise InvalidConfig(document.problems)
    return config


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ConfigFile.model_json_schema(),
        "title": "DIMS configuration",
    }


def _database_url(url: str | None) -> str | None:
    """Return the URL with the driver that DIMS installs: SQLAlchemy 2.1 reads a bare `postgresql://` as psycopg 3.

    Raises ConfigError if it is not a PostgreSQL URL. The error does not quote the URL, which may hold a password.
    """
    if not url:
        return None
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", url)
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "postgresql+psycopg2" and (parts.port or 1) > 0 and len(parts.path) > 1
        fits = fits and url.partition("?")[0].count("@") < 2  # else messages would show half a password as the host
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            "DIMS_DATABASE_URL is not a PostgreSQL URL. Write postgresql://USER:PASSWORD@HOST:5432/NAME "
            "(special characters of a password as %XX)."
        )
    return url


def _display_path(file: Path, cwd: Path) -> str:
    return str(file.relative_to(cwd)) if file.is_relative_to(cwd) else str(file)


def _at(document: YamlDocument, where: Where) -> Any:
    value: Any = document.tree
    for key in where:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _mapping(document: YamlDocument, where: Where) -> dict[str, Any]:
    value = _at(document, where)
    if value is None:
        return {}
    if not isinstance(value, dict):
        document.blame(where, f"must be a mapping, not {type(value).__name__}")
        return {}
    for name in value:
        if not _NAME.fullmatch(name):
            document.blame((*where, name), "a name has lower-case letters, digits and _, and starts with a letter")
    return value


def _texts(document: YamlDocument, where: Where) -> list[str]:
    value = _at(document, where)
    value = [value] if isinstance(value, str) else (value or [])
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    document.blame(where, "must be a string or a list of strings")
    return []


def _model(document: YamlDocument, model: type[_M], where: Where, only: Sequence[str] = ()) -> _M | None:
    """Return the part of the tree at `where` as a model. If it is not valid, note its problems and return None."""
    value = _at(document, where)
    if only and isinstance(value, dict):
        value = {key: value[key] for key in only if value.get(key) is not None}
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_context=False, include_input=False):
            key = (*where, *error["loc"])
            if error["type"] == "extra_forbidden":
                document.blame(key, _unknown_key_error(str(key[-1]), model.model_fields))
            else:
                document.blame(key, error["msg"].removeprefix("Value error, "))
    return None


def _notify(document: YamlDocument) -> NotifySection:
    section = ("notify",)
    settings = [key for key in NotifySection.model_fields if key != "channels"]
    for key in _mapping(document, section).keys() - NotifySection.model_fields.keys():
        document.blame((*section, key), _unknown_key_error(key, NotifySection.model_fields))
    written = {name: (*section, "channels", name) for name in _mapping(document, (*section, "channels"))}
    channels = {name: _model(document, Channel, where) for name, where in written.items()}
    is_mapping = isinstance(_at(document, section), dict)
    general = (_model(document, NotifySection, section, only=settings) if is_mapping else None) or NotifySection()
    return general.model_copy(update={"channels": {name: channel for name, channel in channels.items() if channel}})


def _maintenance(document: YamlDocument) -> dict[str, MaintenanceWindow]:
    windows = {
        name: _model(document, MaintenanceWindow, ("maintenance", name))
        for name in _mapping(document, ("maintenance",))
    }
    return {name: window for name, window in windows.items() if window}


def _unknown_key_error(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return "unknown key; " + (f"did you mean `{close[0]}`?" if close else f"write one of {', '.join(sorted(known))}")


def _sources(document: YamlDocument) -> dict[str, Source]:
    sources = {}
    for name, value in _mapping(document, ("sources",)).items():
        if kind := _kind(value):
            source = _model(document, SOURCES[kind], ("sources", name))
            if source:
                sources[name] = source
        else:
            document.blame(("sources", name, "type"), f"must be one of {', '.join(SOURCES)}")
    return sources


def _kind(source: Any) -> str | None:
    kind = source.get("type") if isinstance(source, dict) else None
    return kind if isinstance(kind, str) and kind in SOURCES else None


def _metrics(document: YamlDocument, sources: Mapping[str, Source]) -> dict[str, Metric]:
    """Return the valid metrics by full name. Each is checked against the type of its source, valid or not."""
    metrics: dict[str, Metric] = {}
    written = _mapping(document, ("sources",))
    kinds = {name: kind for name, value in written.items() if (kind := _kind(value))}
    for category in _mapping(document, ("metrics",)):
        for name, value in _mapping(document, ("metrics", category)).items():
            where = ("metrics", category, name)
            model: type[Metric] | None = None
            source = value.get("source") if isinstance(value, dict) else None
            if isinstance(value, dict) and "derive" in value:
                model = DerivedMetric
            elif isinstance(source, str) and source in kinds:
                model = METRICS[kinds[source]]
            elif isinstance(source, str) and source in written:
                continue  # the problem is the source's type, which is reported at the source
            elif source is None:
                document.blame(where, "needs `source` and `measure`, or `derive`")
            else:
                document.blame((*where, "source"), unknown_name_error(str(source), "source", written))
            metric = _model(document, model, where) if model else None
            if metric and (source is None or source in sources):
                metrics[f"{category}.{name}"] = metric
    return metrics
