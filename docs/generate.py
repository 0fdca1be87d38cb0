"""Write the generated parts of the pages in this folder: `python docs/generate.py`, or `make docs`.

`python docs/generate.py --site FOLDER` also copies the pages for the generator of the site.

A generated part lies between two comments. The first one names what is generated:

    <!-- generated: keys of S3Source -->      a table of the keys of a model in dims_worker/config
    <!-- generated: command dims verify -->   a command: what it does, its usage, options and examples
    <!-- generated: options of dims -->       the options of a command alone
    <!-- generated: list of commands -->      every command, by the groups of `dims --help`
    <!-- end of generated part -->

Never edit a generated part. Change the text in the code, then run this file. tests/docs fails if a part is out of date.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from datetime import date, timedelta
from inspect import cleandoc
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import click
import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from dims_worker.cli.main import SECTIONS, cli
from dims_worker.config.base import Model, Patterns, Regex, Texts
from dims_worker.config.metrics import Metric, SourceMetric
from dims_worker.config.policy import Policy
from dims_worker.config.sources import Source
from dims_worker.config.units import Size
from dims_worker.config.workflows import WorkflowConfig

DOCS = Path(__file__).parent
REFRESH = "python docs/generate.py"
PART = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end of generated part -->)", re.DOTALL)

SHARED_KEYS = (Source, Metric, SourceMetric, WorkflowConfig)
"""Models whose keys have a table of their own: the tables of their subclasses leave them out."""
DISCRIMINATORS = ("type", "measure")
"""Keys whose values have sections and tables of their own."""
NAMED_TYPES = ((Patterns, "pattern or list"), (Texts, "text or list"), (Size, "size"), (Regex, "regular expression"))
FACTORS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def refresh(text: str) -> str:
    """Return a page with all its generated parts written again."""
    return PART.sub(lambda part: f"{part[1]}\n{generate(part[2])}\n\n{part[3]}", text)


def generate(what: str) -> str:
    """Return the Markdown of a generated part. Raises KeyError if it names nothing."""
    if what == "list of commands":
        return list_of_commands()
    if what.startswith("keys of "):
        return table_of_keys(models()[what.removeprefix("keys of ")])
    if what.startswith("options of dims"):
        return table_of_options(commands()[what.removeprefix("options of ")])
    name = what.removeprefix("command ")
    return section_of_command(name, commands()[name])


# --- configuration ------------------------------------------------------------------------------------


def models() -> dict[str, type[BaseModel]]:
    """Return every model of the configuration by its class name."""

    def walk(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for child in model.__subclasses__():
            yield child
            yield from walk(child)

    # A class that something else defined, such as an example that a test runs, is not one of its module.
    return {
        model.__name__: model
        for model in walk(Model)
        if getattr(sys.modules[model.__module__], model.__name__, None) is model
    }


def table_of_keys(model: type[BaseModel]) -> str:
    """Return a table of the keys that this model adds to the shared ones."""
    rows = [
        (f"`{key}`", type_of(field.annotation, field.metadata), default_of(field), field.description or "")
        for key, field in own_fields(model).items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields for a model's table: those it adds to shared ones, and shared ones that it defines again."""
    shared = {key for parent in SHARED_KEYS for key in inherited(model, parent)}
    again = model.__annotations__.keys() - set(DISCRIMINATORS)
    hidden = shared - again | (Policy.model_fields.keys() if model is Metric else set())
    return {key: field for key, field in model.model_fields.items() if key not in hidden}


def inherited(model: type[BaseModel], parent: type[BaseModel]) -> set[str]:
    return set(parent.model_fields) if model is not parent and issubclass(model, parent) else set()


def type_of(annotation: Any, metadata: list[Any] | None = None) -> str:
    """Return the type of a key in plain words."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    for named, word in NAMED_TYPES:
        if get_args(named)[-1] in (metadata or []):
            return word
    origin = get_origin(annotation)
    if origin is Literal:
        return either([f"`{value}`" for value in get_args(annotation)])
    if origin is tuple:
        item = type_of(get_args(annotation)[0])
        return "list of mappings" if item == "mapping" else f"list of {item}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    if origin is not None:  # a union; what null means is in the description
        members = [type_of(member) for member in get_args(annotation) if member is not NoneType]
        return either(list(dict.fromkeys(members)))
    plain = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", SecretStr: "text"}
    return {**plain, timedelta: "duration", date: "day"}[annotation]


def either(words: list[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = plain_value(field.get_default(call_default_factory=True))
    if value in (None, "", [], {}):
        return "none"
    shown = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    shown = re.sub(r"^'([^'\\]*)'$", r'"\1"', shown.removesuffix("\n...\n").strip())
    return f"<code>{shown.replace('|', '&#124;')}</code>" if "|" in shown else f"`{shown}`"


def plain_value(value: Any) -> Any:
    """Return a default as the configuration file writes it."""
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit, factor = next(((u, f) for u, f in FACTORS.items() if seconds and seconds % f == 0), ("s", 1))
        return f"{seconds // factor}{unit}"
    if isinstance(value, BaseModel):
        keys = value.model_dump()
        return keys if all(isinstance(each, int | float) for each in keys.values()) else None
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


# --- commands -----------------------------------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    """Return every command by its full name, such as `dims approvals list`."""
    named: dict[str, click.Command] = {}

    def walk(command: click.Command, name: str) -> None:
        named[name] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                subcommand = command.get_command(context, child)
                if subcommand is not None and not subcommand.hidden:
                    walk(subcommand, f"{name} {child}")

    walk(cli, "dims")
    return named


def list_of_commands() -> str:
    every = commands()
    rows = []
    for group, names in SECTIONS.items():
        for name in names:
            summary = paragraphs(every[f"dims {name}"])[0]
            rows.append((group, f"[`dims {name}`](#dims-{name})", summary.partition(". ")[0].rstrip(".") + "."))
    return table(("group", "command", "what it does"), rows)


def section_of_command(name: str, command: click.Command) -> str:
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    prose = [textwrap.fill(each, 120, break_long_words=False, break_on_hyphens=False) for each in paragraphs(command)]
    parts = [*prose, f"Usage: `{name} {usage}`"]
    if visible_options(command):
        parts.append(table_of_options(command))
    return "\n\n".join(parts + examples(command))


def paragraphs(command: click.Command) -> list[str]:
    """Return the paragraphs of the help, without the examples, each on one line."""
    return [" ".join(each.split()) for each in help_parts(command) if not each.startswith("\b")]


def help_parts(command: click.Command) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", cleandoc(command.help or "")) if part.strip("\b\n ")]


def examples(command: click.Command) -> list[str]:
    """Return what stands in the help as it is typed: a title and a block of code each."""
    parts = []
    for part in help_parts(command):
        if part.startswith("\b"):
            title, *lines = part.removeprefix("\b").strip("\n").splitlines()
            shell = any(line.split()[:1] and line.split()[0].startswith("dims") for line in lines)
            body = cleandoc("\n".join(["", *lines])) if lines else ""
            body = re.sub(r"(?m)^(\S.*?\S)( {2,})(?=\S)", r"\1\2# ", body) if shell else body
            parts.append(f"{title.strip()}\n\n```{'sh' if shell else 'text'}\n{body}\n```")
    return parts


def visible_options(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def table_of_options(command: click.Command) -> str:
    rows = [(names_of(option), option_default(option), meaning_of(option)) for option in visible_options(command)]
    return table(("option", "default", "meaning"), rows)


def names_of(option: click.Option) -> str:
    names = [*sorted(option.opts, key=len), *option.secondary_opts]
    value = "" if option.is_flag else f" {value_of(option)}"
    return ", ".join([*(f"`{name}`" for name in names[:-1]), f"`{names[-1]}{value}`"])


def value_of(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Path | click.File):
        return "FILE"
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
        return "NUMBER"
    return "CHOICE" if isinstance(option.type, click.Choice) else "TEXT"


def option_default(option: click.Option) -> str:
    value = option.get_default(click.Context(click.Command("dims")))
    plain = isinstance(value, str | int | float) and not isinstance(value, bool) and not option.is_flag
    return f"`{value}`" if plain else ""


def meaning_of(option: click.Option) -> str:
    help_text = " ".join((option.help or "").split())
    if isinstance(option.type, click.Choice):
        help_text += f" One of {', '.join(f'`{choice}`' for choice in option.type.choices)}."
    if option.multiple and "repeat" not in help_text.lower():
        help_text += " You can repeat it."
    if option.envvar:
        help_text += f" Environment variable: `{option.envvar}`."
    return help_text.strip()


# --- Markdown -----------------------------------------------------------------------------------------


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def copy_for_site(folder: Path) -> None:
    """Copy this folder. The generator of the site knows one word after the fence of a block: not `yaml fragment`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in folder.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"(?m)^```(\w+) fragment$", r"```\1", text), encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Write every page that is out of date, and print its name."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := refresh(text)) != text:
            page.write_text(new, encoding="utf-8")
            sys.stdout.write(f"wrote {page.relative_to(DOCS.parent)}\n")
    if arguments[:1] == ["--site"]:
        copy_for_site(Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
