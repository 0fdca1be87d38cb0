"""Every error DIMS raises on purpose. A class's docstring is its default message."""

from __future__ import annotations

import inspect


class DimsError(Exception):
    """DIMS could not go on."""

    exit_code = 4

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class UsageError(DimsError):
    """The command was not used as its help says."""

    exit_code = 2


class ConfigError(DimsError):
    """The configuration is not valid."""

    exit_code = 2


class EventError(DimsError):
    """The event is not a CloudEvents 1.0 envelope that DIMS can take."""

    exit_code = 2


class MeasureError(DimsError):
    """A source could not be measured."""

    exit_code = 3


class BrokerUnreachable(DimsError):
    """The broker cannot be reached. Is it running? See DIMS_BROKER_URL, or start one with `dims up`."""

    exit_code = 3


class SpoolFull(DimsError, OSError):
    """The spool takes no more events: what waits there is sent once the broker is back."""

    exit_code = 3


class DatabaseUnreachable(DimsError):
    """The database cannot be reached. Is it running? See DIMS_DATABASE_URL, or start one with `dims up`."""

    exit_code = 3


class ServiceError(DimsError):
    """A server or process of this machine's stack did not start or stop."""

    exit_code = 3


class AlreadyRunning(ServiceError):
    """This home's stack is running already."""


class NotFound(DimsError):
    """There is no such thing."""

    exit_code = 2


class Refused(DimsError):
    """A decision was refused because the facts have changed since they were shown."""

    exit_code = 1


class NotAllowed(DimsError):
    """Somebody else may decide this."""

    exit_code = 1


class NotSent(DimsError):
    """The channel did not take the message."""

    exit_code = 3
