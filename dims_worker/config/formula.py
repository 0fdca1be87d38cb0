"""Parse and evaluate the formula of a derived metric, such as `category.a + category.b`.

simpleeval evaluates it, never `eval`. `category.metric.detail` names a number among the details of that metric's
reading. `prices.name` names a price from the configuration.
"""

from __future__ import annotations

import ast
import copy
import math
import operator
import re
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, DecimalException, Inexact, localcontext
from functools import cache
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from dims_worker.errors import MeasureError
from dims_worker.numbers import ARITHMETIC, Number, exact_decimal, fits_float, is_number, number_of, value_text

PRICES = "prices"
_DOTTED = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,2}")

MAX_BITS = 4096
"""The most bits in the integer result of a power: more than a float holds, few enough to compute at once."""


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise OverflowError("a power is too large")
    return base**exponent


def _round(number: Any, digits: Any = 0) -> Any:
    return round(number, max(int(digits), -400)) if digits else round(number)  # a float has at most 309 digits


def _floor_divide(number: Any, other: Any) -> Any:
    if not isinstance(number, Decimal):
        return number // other
    quotient, rest = divmod(number, other)
    return quotient - 1 if rest and (rest < 0) != (other < 0) else quotient  # down, as for floats


def _modulo(number: Any, other: Any) -> Any:
    return number - other * _floor_divide(number, other) if isinstance(number, Decimal) else number % other


FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "max": max, "min": min, "round": _round}
_ARGUMENT_COUNTS = {"abs": range(1, 2), "max": range(2, 100), "min": range(2, 100), "round": range(1, 3)}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: _floor_divide,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Formula:
    """A parsed formula and the metrics that it reads. Raises ValueError if the text is not a formula."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            tree = ast.parse(" ".join(text.split()), mode="eval")  # a YAML block may have several lines
            self.names = frozenset(_names(tree.body))
            self._tree = _DottedNames().visit(tree.body)
        except (SyntaxError, RecursionError) as error:
            raise ValueError(f"is not a valid formula: {error}") from None
        paths = (name.split(".") for name in self.names)
        self.inputs = frozenset(f"{parts[0]}.{parts[1]}" for parts in paths if parts[0] != PRICES)
        if not self.inputs:
            raise ValueError("the formula reads no metric; name at least one as category.name")

    def value(self, values: Mapping[str, Any]) -> Number:
        """Return the result for the unrounded `values`, an int if the values and the operators keep ints.

        If a value has more digits than a float, the formula is computed with decimals. So sums and products keep all
        digits, and quotients 40.

        Raises MeasureError if there is no such number: a division by zero, a text among the values, or a
        result that a float cannot hold.
        """
        names = {name: values[name] for name in sorted(self.names)}
        inputs = ", ".join(f"{name} = {value_text(value):.40}" for name, value in names.items())
        if not all(isinstance(value, int | float | Decimal) for value in names.values()):
            raise MeasureError(f"cannot compute {self.text!r} with {inputs}: a formula takes only numbers")
        try:
            result = self._decimal(names) if any(map(_needs_decimals, names.values())) else self._plain(names)
            number = is_number(result) and math.isfinite(result)
        except (InvalidExpression, ArithmeticError, TypeError, ValueError, RecursionError) as error:
            raise MeasureError(f"cannot compute {self.text!r} with {inputs}: {_reason(error)}") from None
        if not number:
            raise MeasureError(f"cannot compute {self.text!r} with {inputs}: {result!r:.40} is not a number")
        return result  # type: ignore[no-any-return]

    def _plain(self, names: Mapping[str, Any]) -> Any:
        evaluator = SimpleEval(operators=_OPERATORS, functions=FUNCTIONS, names=dict(names))
        return evaluator.eval(self.text, previously_parsed=self._tree)

    def _decimal(self, names: Mapping[str, Any]) -> Any:
        exact = {name: exact_decimal(value) if is_number(value) else value for name, value in names.items()}
        evaluator = SimpleEval(operators=_OPERATORS, functions=FUNCTIONS, names=exact)
        with localcontext(ARITHMETIC) as context:
            result = evaluator.eval(self.text, previously_parsed=_DecimalConstants().visit(copy.deepcopy(self._tree)))
            if not isinstance(result, Decimal):
                return result
            if context.flags[Inexact]:
                return float(result) if all(map(fits_float, exact.values())) else number_of(_QUOTIENT.plus(result))
        return number_of(result)


def _reason(error: Exception) -> str:
    """Return why a formula has no result. The errors of the decimal module have no message for people."""
    if not isinstance(error, DecimalException):
        return str(error)
    return "division by zero" if isinstance(error, ZeroDivisionError) else "the result is not a number, or too large"


def _needs_decimals(value: Any) -> bool:
    return isinstance(value, Decimal) or (type(value) is int and not fits_float(value))


_QUOTIENT = Context(prec=40)


class _DecimalConstants(ast.NodeTransformer):
    """Make the constants of a formula decimals: a float has no place among them."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        assert is_number(node.value)  # see `_names`
        decimal: Any = exact_decimal(node.value)
        return ast.copy_location(ast.Constant(decimal), node)


class _DottedNames(ast.NodeTransformer):
    """Turn `category.name` into one name, so that the evaluator never looks up an attribute of an object."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.Name:
        return ast.copy_location(ast.Name(ast.unparse(node), ast.Load()), node)


def _names(node: ast.AST) -> set[str]:  # noqa: PLR0911 - one return per kind of node
    """Return the dotted names below a node. Raises ValueError at anything that a formula may not contain."""
    match node:
        case ast.Attribute() if _DOTTED.fullmatch(name := ast.unparse(node)):
            return {name}
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if len(args) in _ARGUMENT_COUNTS.get(name, ()):
            return set().union(*map(_names, args))
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
        f"a formula cannot contain {ast.unparse(node)!r:.80}; write category.name, numbers, + - * / // % **, "
        f"comparisons, `a if b else c`, {', '.join(FUNCTIONS)}"
    )


@cache
def parse_formula(text: str) -> Formula:
    """Return `Formula(text)`, parsed once."""
    return Formula(text)
