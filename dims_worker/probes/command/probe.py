"""Measure what a program prints: a number, a text, or a value in its JSON. Equal commands run once a pass."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

from dims_worker.config import CommandMetric, CommandSource
from dims_worker.errors import MeasureError
from dims_worker.numbers import Number, exact_decimal, loads, number_of, parse_fraction
from dims_worker.probes.base import (
    Deadline,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    Value,
    exact_reading,
    missing_reading,
    missing_readings,
    printable_path,
    result_of,
    result_or_error,
)
from dims_worker.probes.command.process import ProgramResult, run_program
from dims_worker.probes.json_path import resolve_pointer
from dims_worker.probes.text_values import checked_text

_AT_ONCE = 4
_THREADS = 64
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

Command = tuple[str, ...] | str
"""A list of arguments, or a text for the shell."""


class CommandProbe(Probe[CommandSource, CommandMetric]):
    """Measures with programs. DIMS does not know what they read: use rules that name the metrics.

    A program gets no input, and the environment of the worker without the DIMS_ variables. Only DIMS_HOME,
    DIMS_CONFIG and DIMS_USER are passed on.
    """

    def scan(
        self, source: CommandSource, metrics: Mapping[str, CommandMetric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. A few programs run in parallel. Those that hang do not keep the others from running.

        If the folder is missing, all metrics report it.
        """
        deadline.check()
        folder = context.path_of(source.cwd)
        if not folder.is_dir():
            return ScanResult(
                missing_readings(metrics, f"{printable_path(str(folder))} is not a folder: check `cwd` of the source")
            )
        commands = list(dict.fromkeys(metric.command for metric in metrics.values()))
        slots = _Slots(_AT_ONCE, deadline.left / max(1, math.ceil(len(commands) / _AT_ONCE)))
        with ThreadPoolExecutor(max(1, min(len(commands), _THREADS)), "command") as pool:
            results = pool.map(lambda command: result_or_error(_run, command, folder, deadline, slots), commands)
            ended = dict(zip(commands, results, strict=True))
        return ScanResult(tuple(_reading(name, metric, ended[metric.command]) for name, metric in metrics.items()))


class _Slots:
    """Lets a few programs run at once. One that takes longer than its share runs on, but no other waits for it.

    So programs that hang fail alone.
    """

    def __init__(self, at_once: int, share: float) -> None:
        self._free = threading.Semaphore(at_once)
        self._share = share

    @contextlib.contextmanager
    def take(self, deadline: Deadline) -> Iterator[None]:
        """Wait for a slot. Raises MeasureError if there is none before the deadline."""
        if not self._free.acquire(timeout=deadline.left):
            deadline.check()
            raise MeasureError("the program could not be started in time: raise `timeout` of the source")
        held = threading.Lock()

        def release() -> None:
            if held.acquire(blocking=False):  # only once: when the share is over, or when the program has ended
                self._free.release()

        timer = threading.Timer(self._share, release)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            release()


def _run(command: Command, folder: Path, deadline: Deadline, slots: _Slots) -> ProgramResult:
    arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    with slots.take(deadline):
        return run_program(arguments, folder, deadline)


def _reading(name: str, metric: CommandMetric, ended: ProgramResult | MeasureError) -> Reading:
    try:
        value = _value(metric, _output(metric.command, result_of(ended)))
    except (MeasureError, ValueError) as error:
        return Reading.failed(name, metric.shown_unit, str(error))
    except LookupError as error:
        return missing_reading(name, metric, error.args[0])
    return exact_reading(name, metric, value)


def _output(command: Command, ended: ProgramResult) -> str:
    """Return the output of a program. Raises MeasureError, with the end of its error output, if it failed."""
    if ended.code:
        complaint = " / ".join(_text(ended.errors).strip().splitlines()[-3:])[-500:]
        name = _shortened(command if isinstance(command, str) else command[0])
        raise MeasureError(f"{name} {_ending(ended.code)}{': ' if complaint else ''}{complaint}")
    return _text(ended.output)


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"


def _value(metric: CommandMetric, output: str) -> Value:
    """Parse the output as the metric requires. Raises ValueError if that is not possible, and LookupError for a
    null in JSON."""
    printed = output.strip()
    match metric.parse:
        case "text":
            return checked_text(printed, "printed")
        case "json":
            assert metric.pointer is not None
            return _pointed(printed, metric.pointer)
        case "integer":
            if not _INTEGER.fullmatch(printed):
                raise ValueError(f"printed {_quoted(printed)}, which is not an integer")
            return int(printed)
        case "number":
            if not _NUMBER.fullmatch(printed) or not math.isfinite(float(printed)):
                raise ValueError(f"printed {_quoted(printed)}, which is not a number")
            return _measured(int(printed) if _INTEGER.fullmatch(printed) else parse_fraction(printed), "printed")


def _measured(number: Number, origin: str) -> Number:
    """Return the number. Raises ValueError if it is too large, or has too many digits, to be a measurement."""
    try:
        number_of(exact_decimal(number))
    except ValueError as error:
        raise ValueError(f"{origin} {error}") from None
    return number


def _pointed(printed: str, pointer: str) -> Value:
    try:
        document = loads(printed, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"printed {_quoted(printed)}, which is not JSON") from None
    try:
        values = list(resolve_pointer(document, pointer))
    except LookupError as error:
        raise ValueError(f"the JSON has no {pointer}: {error.args[0]}") from None
    if len(values) != 1:
        raise ValueError(f"the JSON has {len(values)} values at {pointer}: `pointer` must lead to one")
    match values[0]:
        case None:
            raise LookupError(f"the JSON has null at {pointer}")
        case bool() as value:
            return value
        case int() | float() | Decimal() as value:
            return _measured(value, f"the JSON has at {pointer}")
        case str() as value:
            readable = _text(value.encode("utf-8", "backslashreplace"))  # JSON can contain half a surrogate pair
            return checked_text(readable, f"the JSON has at {pointer}")
        case _:
            raise ValueError(f"the JSON has a list or an object at {pointer}, not a single value")


def _no_constant(name: str) -> Value:
    raise ValueError(f"{name} is not JSON")


def _quoted(printed: str) -> str:
    return repr(_shortened(printed)) if printed else "nothing"


def _shortened(arguments: str) -> str:
    return arguments if len(arguments) <= 80 else f"{arguments[:79]}…"


def _text(raw: bytes) -> str:
    r"""Decode bytes. Those that are not UTF-8 become `\xff`, and NUL, which PostgreSQL cannot store, `\x00`."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", r"\x00")
