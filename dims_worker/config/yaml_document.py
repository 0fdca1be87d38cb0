"""Read YAML files with the file and line of every key, and fill in `${…}` from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Where = tuple[str | int, ...]
"""The path to a key, such as ("sources", "lake", "bucket")."""

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:[^}\\]|\\.)*))?\}|\$\{")


@dataclass(frozen=True, order=True)
class Problem:
    """A problem and its place: file, line (from 1) and key."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'{self.key}: ' if self.key else ''}{self.message}"


@dataclass
class YamlDocument:
    """The merged tree of all files, the place of each key, and the problems found so far."""

    env: Mapping[str, str]
    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Where, tuple[str, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def blame(self, where: Where, message: str) -> None:
        """Add a problem at a key, or at the nearest key above it that is in a file."""
        place = where
        while place not in self.places and place:
            place = place[:-1]
        file, line = self.places.get(place, ("", 1))
        self.problems.append(Problem(file, line, ".".join(map(str, where)), message))

    def read(self, file: Path, display_name: str) -> None:
        """Merge a file into the tree, section by section. Messages call the file `display_name`.

        A file that cannot be read or is not YAML becomes a problem, and so does a key that two files define.
        """
        self.places.setdefault((), (display_name, 1))
        try:
            root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
            tree = _Reader(self, display_name).value(root, ()) if root is not None else {}
        except OSError as error:
            self.problems.append(Problem(display_name, 1, "", f"cannot be read: {error.strerror}"))
            return
        except UnicodeDecodeError:
            self.problems.append(Problem(display_name, 1, "", "is not UTF-8 text; save the file as UTF-8"))
            return
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.problems.append(
                Problem(display_name, line, "", f"is not valid YAML: {error.problem or error.context}")
            )
            return
        except yaml.YAMLError as error:
            self.problems.append(Problem(display_name, 1, "", f"is not valid YAML: {str(error).splitlines()[0]}"))
            return
        if isinstance(tree, dict):
            self._merge(self.tree, tree, ())
        else:
            self.problems.append(Problem(display_name, 1, "", "must be a mapping of sections, such as `sources:`"))

    def _merge(self, into: dict[str, Any], more: dict[str, Any], where: Where) -> None:
        for key, value in more.items():
            known = into.get(key)
            # Two files may share a section or a category of metrics, but not one source or rule
            shared = not where or where == ("metrics",)
            if isinstance(known, dict) and isinstance(value, dict) and shared:
                self._merge(known, value, (*where, key))
            elif value is None and key in into and not where:
                continue  # an empty section
            elif key in into and (known is not None or where):
                self.blame((*where, key), "is defined in two files; keep one definition")
            else:
                into[key] = value


class _Reader:
    """Turn the nodes of one file into values, and add their places and problems to the document."""

    def __init__(self, document: YamlDocument, display_name: str) -> None:
        self.document = document
        self.display_name = display_name
        self.yaml = yaml.SafeLoader("")
        self.parents: list[yaml.Node] = []

    def value(self, node: yaml.Node, where: Where) -> Any:
        self.document.places[where] = (self.display_name, node.start_mark.line + 1)
        if any(node is parent for parent in self.parents):
            self.document.blame(where, "contains itself; this alias names one of its parents")
            return None
        self.parents.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, where)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*where, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.ScalarNode)
            return self._scalar(node, where)
        finally:
            self.parents.pop()

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        plain = {id(key) for key, _ in node.value}
        self.yaml.flatten_mapping(node)  # applies `<<`; a key may override a merged key, but not another key
        result: dict[str, Any] = {}
        written: set[str] = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.document.places[(*where, "?")] = (self.display_name, key_node.start_mark.line + 1)
                self.document.blame((*where, "?"), "a key must be a string")
                continue
            key = str(key_node.value)
            here = (*where, key)
            if id(key_node) in plain and key in written:
                self.document.places[here] = (self.display_name, key_node.start_mark.line + 1)
                self.document.blame(here, "appears twice in the same mapping; keep one")
            if id(key_node) in plain:
                written.add(key)
            result[key] = self.value(value_node, here)
            self.document.places[here] = (self.display_name, key_node.start_mark.line + 1)
        return result

    def _scalar(self, node: yaml.ScalarNode, where: Where) -> Any:
        text = str(node.value)
        filled = _VARIABLE.sub(lambda match: self._variable(match, where), text)
        tag = node.tag
        if filled != text and node.style is None:  # without quotes, a filled-in number is a number
            tag = self.yaml.resolve(yaml.ScalarNode, filled, (True, False))  # type: ignore[no-untyped-call]
        try:
            return self.yaml.construct_object(yaml.ScalarNode(tag, filled, node.start_mark, node.end_mark))
        except (yaml.YAMLError, ValueError) as error:
            self.document.blame(where, str(error).splitlines()[0])
            return None

    def _variable(self, match: re.Match[str], where: Where) -> str:
        if match[1]:
            return "${"  # `$${NAME}` is a literal `${NAME}`
        if not match[2]:
            self.document.blame(where, "has a `${` without a variable; write ${NAME}, ${NAME:-default} or $${")
            return match[0]
        value = self.document.env.get(match[2])
        if value:
            return value
        if match[3] is not None:
            return match[3].replace("\\}", "}")
        if value is None:
            self.document.blame(where, f"the variable {match[2]} is not set; set it or write ${{{match[2]}:-default}}")
            return match[0]
        return value
