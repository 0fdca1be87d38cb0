"""The arithmetic of a derived metric: `category.a + category.b`. Evaluated by simpleeval, never by `eval`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from dims_worker.errors import MeasureError

FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "max": max, "min": min, "round": round}


class Expression:
    """A parsed expression and the metrics it reads. Raises ValueError where it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ValueError(f"is not an expression: {error}") from None
        self.inputs = frozenset(_inputs(tree.body))
        if not self.inputs:
            raise ValueError("reads no metric: name at least one as category.name")
        self._tree = tree.body

    def value(self, values: Mapping[str, Any]) -> int | float:
        """The result for the unrounded values of `inputs`, int where they and the operators keep ints.

        Raises MeasureError where there is no such number (a division by zero, a text among the inputs).
        """
        names: dict[str, SimpleNamespace] = {}
        for metric in self.inputs:
            category, name = metric.split(".")
            setattr(names.setdefault(category, SimpleNamespace()), name, values[metric])
        try:
            result = SimpleEval(names=names, functions=FUNCTIONS).eval(self.text, previously_parsed=self._tree)
        except (InvalidExpression, ArithmeticError, TypeError, ValueError, SyntaxError) as error:
            shown = ", ".join(f"{name} = {values[name]!r:.40}" for name in sorted(self.inputs))
            raise MeasureError(f"{self.text!r} has no value for {shown}: {error}") from None
        if isinstance(result, bool) or not isinstance(result, int | float):
            raise MeasureError(f"{self.text!r} is {result!r:.40}, which is no number")
        return result


def _inputs(node: ast.AST) -> set[str]:  # noqa: PLR0911 - one return a kind of node
    """The dotted names below a node. Raises ValueError at anything that arithmetic does not need."""
    match node:
        case ast.Attribute(value=ast.Name(id=category), attr=name):
            return {f"{category}.{name}"}
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return set().union(*map(_inputs, arguments))
        case ast.BinOp(left=left, right=right):
            return _inputs(left) | _inputs(right)
        case ast.UnaryOp(operand=operand):
            return _inputs(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _inputs(test) | _inputs(body) | _inputs(orelse)
        case ast.Compare(left=left, comparators=others):
            return _inputs(left).union(*map(_inputs, others))
        case ast.Constant(value=int() | float()):
            return set()
    raise ValueError(
        f"may hold category.name, numbers, + - * / // % **, comparisons, `a if b else c` "
        f"and {', '.join(FUNCTIONS)}; not {ast.unparse(node)!r}"
    )


@cache
def expression(text: str) -> Expression:
    """`Expression(text)`, parsed once."""
    return Expression(text)
