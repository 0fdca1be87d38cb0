"""Find the places in a module where a small change should make a test fail.

Python code is changed by its syntax tree, and SQL by its text.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SQL = re.compile(r"\b(SELECT|WHERE|AND|OR|SET|FROM|ORDER BY)\b")
SQL_CHANGES = (
    (re.compile(r"(?<= )<(?= )"), "<="),
    (re.compile(r"(?<= )>(?= )"), ">="),
    (re.compile(r"(?<= )<=(?= )"), "<"),
    (re.compile(r"(?<= )>=(?= )"), ">"),
    (re.compile(r"\bAND\b"), "OR"),
    (re.compile(r"\bOR\b"), "AND"),
    (re.compile(r"\bIS NOT NULL\b"), "IS NULL"),
    (re.compile(r"(?<= )\+(?= )"), "-"),
    (re.compile(r"\btrue\b"), "false"),
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `before` at this line (from 1) becomes `after`, which gives `source`."""

    line: int
    kind: str
    before: str
    after: str
    source: str


def find_mutants(source: str) -> list[Mutant]:
    """Return all mutants of a module that compile, in order of their lines."""
    tree = ast.parse(source)
    mutants = [*_python_mutants(source, tree), *_sql_mutants(source, tree)]
    return sorted((mutant for mutant in mutants if _compiles(mutant.source)), key=lambda mutant: mutant.line)


def _compiles(source: str) -> bool:
    try:
        compile(source, "<mutant>", "exec")
    except SyntaxError:
        return False
    return True


def _python_mutants(source: str, tree: ast.Module) -> Iterator[Mutant]:
    for node in _live_nodes(tree):
        for kind, replacement in _changes(node):
            assert isinstance(node, ast.expr | ast.stmt) and node.end_lineno is not None
            begin = _offset(source, node.lineno, node.col_offset)
            end = _offset(source, node.end_lineno, node.end_col_offset or 0)
            before = source[begin:end]
            changed = f"{source[:begin]}{replacement}{source[end:]}"
            yield Mutant(node.lineno, kind, " ".join(before.split()), replacement, changed)


def _live_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that a test can notice: no annotations, decorators, assertions, messages or f-strings."""
    skipped: list[ast.AST | None] = []
    match node:
        case ast.Assert() | ast.Raise() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return
        case ast.FunctionDef():
            skipped = [*node.decorator_list, node.returns, node.args]
        case ast.ClassDef():
            skipped = list(node.decorator_list)
        case ast.AnnAssign():
            skipped = [node.annotation]
    yield node
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from _live_nodes(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (kind, new code) for each change of a node."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            yield "comparison", _code(ast.Compare(left, [COMPARISONS[type(op)]()], [right]))
        case ast.BoolOp(op=op, values=values):
            yield "boolean", _code(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", _code(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            yield "arithmetic", _code(ast.BinOp(left, ARITHMETIC[type(op)](), right))
        case ast.Constant(value=bool() as value):
            yield "constant", str(not value)
        case ast.Constant(value=int() as value):
            yield "constant", str(value + 1)
        case ast.IfExp(body=body, orelse=orelse):
            yield "conditional", _code(body)
            yield "conditional", _code(orelse)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", "return None"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement", "pass"


def _code(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _offset(source: str, line: int, column: int) -> int:
    """Return the index of a position of the syntax tree, whose columns count bytes of UTF-8."""
    lines = source.splitlines(keepends=True)
    return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())


def _sql_mutants(source: str, tree: ast.Module) -> Iterator[Mutant]:
    prose = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    texts = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in texts or token.start[0] in prose or not SQL.search(token.string):
            continue
        begin = sum(map(len, source.splitlines(keepends=True)[: token.start[0] - 1])) + token.start[1]
        end = begin + len(token.string)
        if source[begin:end] != token.string:  # an f-string with `{{`, whose text differs from its source
            continue
        for pattern, replacement in SQL_CHANGES:
            for match in pattern.finditer(token.string):
                at = begin + match.start()
                changed = f"{source[:at]}{replacement}{source[at + len(match[0]) :]}"
                line = token.start[0] + token.string.count("\n", 0, match.start())
                text = token.string.strip("\"' ")
                after = f"{token.string[: match.start()]}{replacement}{token.string[match.end() :]}".strip("\"' ")
                yield Mutant(line, "SQL", text, after, changed)
