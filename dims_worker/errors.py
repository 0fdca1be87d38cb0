"""Define every error that DIMS raises on purpose. The docstring of a class is its default message."""

from __future__ import annotations

import inspect


class DimsError(Exception):
    """DIMS could not continue."""

    exit_code = 4

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class UsageError(DimsError):
    """The command was not used as its help describes. Add --help to see how to use it."""

    exit_code = 2


class ConfigError(DimsError):
    """The configuration is not valid."""

    exit_code = 2


class EventError(DimsError):
    """The event is not a CloudEvents 1.0 envelope that DIMS accepts."""

    exit_code = 2


class MeasureError(DimsError):
    """A source could not be measured."""

    exit_code = 3


class ScanStopped(DimsError):
    """The worker stops, so the scan was ended before it had a result."""

    exit_code = 3


class BrokerUnreachable(DimsError):
    """The broker cannot be reached. Start it with `dims up`, or set DIMS_BROKER_URL."""

    exit_code = 3


class SpoolFull(DimsError, OSError):
    """The spool is full and accepts no more events. Its events are sent when the broker is back."""

    exit_code = 3


class DatabaseUnreachable(DimsError):
    """The database cannot be reached. Start it with `dims up`, or set DIMS_DATABASE_URL."""

    exit_code = 3


class ServiceError(DimsError):
    """A server or process of the local stack did not start or stop."""

    exit_code = 3


class AlreadyRunning(ServiceError):
    """The local stack of this data directory is already running."""


class NotFound(DimsError):
    """The requested item does not exist."""

    exit_code = 2


class Refused(DimsError):
    """A decision was refused because the facts have changed since you saw them. Look again, then decide."""

    exit_code = 1


class NotAllowed(DimsError):
    """Only the approvers of this metric can decide this."""

    exit_code = 1


class NotSent(DimsError):
    """The channel did not accept the message."""

    exit_code = 3
