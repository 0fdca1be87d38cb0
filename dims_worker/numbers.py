"""Numbers with all their digits: from text and JSON, to text and JSON, and the arithmetic that compares them.

A number is an int, a float, or a Decimal. A Decimal is used only where a float would lose something: more digits than a
float holds, or zeros at the end (`12.50`). So most numbers with a fraction are floats, and no digit is lost.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation, localcontext
from typing import Any, TypeGuard

Number = int | float | Decimal

LARGEST = 1e300
"""A number from here on is not a measurement: calculations with it could exceed what a float holds."""

MAX_DIGITS = 1000
"""The most digits of a number that DIMS stores."""

FLOAT_DIGITS = 15
"""Every decimal number with up to this many significant digits is a float, and back, without a change."""

ARITHMETIC = Context(prec=400, Emax=999_999, Emin=-999_999)
"""More digits than the sum of any two numbers that DIMS stores."""


def is_number(value: Any) -> TypeGuard[Number]:
    """Return whether a value is an int, a float or a Decimal. A bool is not a number here."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def exact_decimal(number: Number) -> Decimal:
    """Return the number as a Decimal. A float is the shortest decimal that it is printed as: 0.1, not 0.1000…0055."""
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def number_of(written: str | Decimal) -> Number:
    """Return the number that is written, with all its digits.

    Raises ValueError, with the reason, for NaN, infinity, a number from 1e300 on, and one with over 1,000 digits.
    """
    try:
        exact = Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{written!r:.80}, which is not a number") from None
    if not exact.is_finite():
        raise ValueError(f"{exact}, which is not a measurement")
    if exact and not exact.adjusted() < math.log10(LARGEST):
        raise ValueError(f"{exact:.3g}, which is not a measurement, because it is too large: the limit is {LARGEST:g}")
    if len(exact.as_tuple().digits) > MAX_DIGITS or exact.adjusted() < -MAX_DIGITS:
        raise ValueError(f"{exact:.3g} with more than {MAX_DIGITS:,} digits: round it")
    return int(exact) if _exponent(exact) >= 0 else _with_fraction(exact)


def parse_fraction(written: str) -> float | Decimal:
    """Return a number of JSON that has a fraction or an exponent, as a float if that loses nothing."""
    number = float(written)
    return number if repr(number) == written else _with_fraction(Decimal(written))


def _with_fraction(exact: Decimal) -> float | Decimal:
    number = float(exact)
    if not math.isfinite(number):
        return exact
    shortest = Decimal(repr(number))
    if shortest != exact:
        return exact
    same_scale = _exponent(exact) >= 0 or max(-_exponent(shortest), 1) == -_exponent(exact)
    return number if same_scale else exact


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # it is a letter for NaN and infinity
    return exponent


def digits_of(number: Number) -> str:
    """Return all digits of a number, without an exponent: `12.50`, `100000000000000000000.0`."""
    text = format(exact_decimal(number), "f")
    return f"{text}.0" if isinstance(number, float) and "." not in text else text


def fits_float(number: Number) -> bool:
    """Return whether a program that reads each number as a float, such as a spreadsheet, keeps every digit."""
    return len(exact_decimal(number).normalize(ARITHMETIC).as_tuple().digits) <= FLOAT_DIGITS


def magnitude(number: Number) -> Number:
    """Return the number without its sign, with all its digits."""
    return number.copy_abs() if isinstance(number, Decimal) else abs(number)


def same_number(one: Number, other: Number) -> bool:
    """Return whether two numbers are equal: `12.50` and 12.5 are."""
    if isinstance(one, Decimal) or isinstance(other, Decimal):
        return exact_decimal(one) == exact_decimal(other)
    return one == other


def same_value(one: Any, other: Any) -> bool:
    """Return whether two values are equal: equal numbers, or texts, truth values or nulls of the same type."""
    if is_number(one) and is_number(other):
        return same_number(one, other)
    return type(one) is type(other) and bool(one == other)


def less_than(one: Number, other: Number) -> bool:
    """Return whether a number is smaller than another. 0.10 is not smaller than the float 0.1."""
    if isinstance(one, Decimal) or isinstance(other, Decimal):
        return exact_decimal(one) < exact_decimal(other)
    return one < other


def difference(number: Number, other: Number) -> Number:
    """Return the first number minus the second. No digit is lost, except between an int and a float, or two floats."""
    if isinstance(number, Decimal) or isinstance(other, Decimal):
        with localcontext(ARITHMETIC):
            change = exact_decimal(number) - exact_decimal(other)
        return int(change) if _exponent(change) >= 0 else change
    return number - other


def value_text(value: Any) -> str:
    """Return a value for a sentence: a number with all its digits, and any other value as Python writes it."""
    return digits_of(value) if isinstance(value, Decimal) else repr(value)


_MARK = f"decimal-{secrets.token_hex(16)}-"
_MARKED = re.compile(f'"{_MARK}([0-9]+)"')


def dumps(value: Any, *, default: Callable[[Any], Any] | None = None, **options: Any) -> str:
    """Return `json.dumps(value)`, in which a Decimal is a number with all its digits."""
    written: list[str] = []

    def convert(part: Any) -> Any:
        if isinstance(part, Decimal):
            if not part.is_finite():
                raise ValueError(f"{part} has no JSON form")
            written.append(format(part, "f"))
            return f"{_MARK}{len(written) - 1}"  # a text that occurs nowhere else: json has no way to write digits
        if default is None:
            raise TypeError(f"{type(part).__name__} has no JSON form")
        return default(part)

    text = json.dumps(value, default=convert, **options)
    return _MARKED.sub(lambda match: written[int(match[1])], text) if written else text


def loads(text: str | bytes, **options: Any) -> Any:
    """Return `json.loads(text)`, in which no number loses a digit."""
    return json.loads(text, parse_float=parse_fraction, **options)
