"""Define every error that DIMS raises on purpose. The docstring of a class is its default message."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Iterator
from contextlib import contextmanager


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


class WrongBroker(ConfigError):
    """The broker cannot serve this project. Name another one in DIMS_BROKER_URL."""


class SpoolFull(DimsError, OSError):
    """The spool is full and accepts no more events. Its events are sent when the broker is back."""

    exit_code = 3


class DatabaseUnreachable(DimsError):
    """The database cannot be reached. Start it with `dims up`, or set DIMS_DATABASE_URL."""

    exit_code = 3


class DatabaseRefused(DatabaseUnreachable):
    """The database answers, but DIMS cannot use it. Its message has the fix."""


class DatabaseForbidden(DatabaseRefused):
    """The database, or the user that DIMS connects as, allows no such change."""


class DatabaseBusy(DatabaseRefused):
    """The transaction failed because of other transactions. Try again."""


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


_OS_FIXES = {
    errno.ENOSPC: "Free space on its disk",
    errno.EDQUOT: "Free space, or raise the quota of your user",
    errno.EROFS: "Use a folder on a file system that is not read-only",
    errno.EACCES: "Change its owner or its mode, or run the command as its owner",
    errno.EPERM: "Change its owner or its mode, or run the command as its owner",
    errno.EMFILE: "Raise the limit of this process, for example with `ulimit -n 4096`",
    errno.ENFILE: "Raise the limit fs.file-max of this host",
    errno.ENOMEM: "Free memory on this host",
    errno.EAGAIN: "Raise the limit on processes of your user, for example with `ulimit -u`",
    errno.ENOLCK: "Use a folder on a local disk: this file system has no locks",
    errno.ENOTSUP: "Use a folder on a local disk",
    errno.EIO: "Check the disk: it could not read or write",
    errno.ENAMETOOLONG: "Use a shorter path",
    errno.ENOENT: "Create it, or correct its name",
    errno.ENOTDIR: "A part of the path is a file: rename it, or use another folder",
    errno.EISDIR: "Name a file: this is a folder",
    errno.ELOOP: "A symbolic link leads to itself: remove it",
}
_INOTIFY_FIXES = {
    errno.ENOSPC: "Watch fewer folders, or run as root: sysctl fs.inotify.max_user_watches=524288",
    errno.EMFILE: "Stop other watchers, or run as root: sysctl fs.inotify.max_user_instances=1024",
}


def explain_os_error(error: OSError, place: object = None) -> str:
    """Return what the system refused, where, and the fix. `place` is for an error that names no file."""
    file = error.filename if error.filename is not None else place
    where = f"{file.decode(errors='replace') if isinstance(file, bytes) else file}: " if file is not None else ""
    return where + reason_and_fix(error)


@contextmanager
def naming_file(path: object) -> Iterator[None]:
    """Give the file to an error of the system that names none, as an error of a write does."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def reason_and_fix(error: OSError) -> str:
    """Return what the system refused and the fix, without the file."""
    reason = error.strerror or str(error) or type(error).__name__
    fixes = _INOTIFY_FIXES if "inotify" in str(error) else _OS_FIXES
    fix = fixes.get(error.errno or 0)
    return f"{reason}{f'. {fix}.' if fix else ''}"
