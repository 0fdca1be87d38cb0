"""The arithmetic of a derived metric: `category.a + category.b`. Evaluated by simpleeval, never by `eval`.

`category.metric.detail` is a number that the metric's reading keeps beside its value; `prices.name` is one of
the configuration's prices.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from dims_worker.errors import MeasureError

PRICES = "prices"
_DOTTED = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,2}")

MAX_BITS = 4096
"""The longest whole number that a power may give: more than a float can hold, less than anyone waits for."""


def _power(base: float, exponent: float) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise OverflowError("a power is too large")
    return base**exponent


def _round(number: float, digits: int = 0) -> float:
    return round(number, max(digits, -400)) if digits else round(number)  # a float has 309 digits at most


FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "max": max, "min": min, "round": _round}
_TAKES = {"abs": range(1, 2), "max": range(2, 100), "min": range(2, 100), "round": range(1, 3)}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: _power},
    **{ast.UAdd: operator.pos, ast.USub: operator.neg},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le},
    **{ast.Gt: operator.gt, ast.GtE: operator.ge},
}


class Formula:
    """A parsed expression and the metrics it reads. Raises ValueError where it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            tree = ast.parse(" ".join(text.split()), mode="eval")  # YAML's blocks have lines
            self.names = frozenset(_names(tree.body))
            self._tree = _DottedNames().visit(tree.body)
        except (SyntaxError, RecursionError) as error:
            raise ValueError(f"is not an expression: {error}") from None
        read = (name.split(".") for name in self.names)
        self.inputs = frozenset(f"{parts[0]}.{parts[1]}" for parts in read if parts[0] != PRICES)
        if not self.inputs:
            raise ValueError("reads no metric: name at least one as category.name")

    def value(self, values: Mapping[str, Any]) -> int | float:
        """The result for the unrounded values of `names`, int where they and the operators keep ints.

        Raises MeasureError where there is no such number (a division by zero, a text among the inputs, a
        result beyond what a float can hold).
        """
        names = {name: values[name] for name in sorted(self.names)}
        shown = ", ".join(f"{name} = {value!r:.40}" for name, value in names.items())
        if not all(isinstance(value, int | float) for value in names.values()):
            raise MeasureError(f"{self.text!r} has no value for {shown}: it takes numbers alone")
        evaluator = SimpleEval(operators=_OPERATORS, functions=FUNCTIONS, names=names)
        try:
            result = evaluator.eval(self.text, previously_parsed=self._tree)
            number = isinstance(result, int | float) and not isinstance(result, bool) and math.isfinite(result)
        except (InvalidExpression, ArithmeticError, TypeError, ValueError, RecursionError) as error:
            raise MeasureError(f"{self.text!r} has no value for {shown}: {error}") from None
        if not number:
            raise MeasureError(f"{self.text!r} is {result!r:.40}, which is no number")
        return result  # type: ignore[no-any-return]


class _DottedNames(ast.NodeTransformer):
    """Makes `category.name` one name: nothing is ever looked up in an object, and any name will do."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.Name:
        return ast.copy_location(ast.Name(ast.unparse(node), ast.Load()), node)


def _names(node: ast.AST) -> set[str]:  # noqa: PLR0911 - one return a kind of node
    """The dotted names below a node. Raises ValueError at anything that arithmetic does not need."""
    match node:
        case ast.Attribute() if _DOTTED.fullmatch(name := ast.unparse(node)):
            return {name}
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if len(arguments) in _TAKES.get(name, ()):
            return set().union(*map(_names, arguments))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _names(left) | _names(right)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _names(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _names(test) | _names(body) | _names(orelse)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _OPERATORS for op in ops):
            return _names(left).union(*map(_names, others))
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return set()
    raise ValueError(
        f"may hold category.name, numbers, + - * / // % **, comparisons, `a if b else c` "
        f"and {', '.join(FUNCTIONS)}; not {ast.unparse(node)!r:.80}"
    )


@cache
def parse_formula(text: str) -> Formula:
    """`Expression(text)`, parsed once."""
    return Formula(text)
