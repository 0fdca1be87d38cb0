"""What runs in a scan process: it answers one call after another until its parent is gone or needs it no more."""

from __future__ import annotations

import gc
import logging
import logging.handlers
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from dims_worker.probes.scan_process.message_channel import MessageChannel
from dims_worker.probes.scan_process.process_tree import kill_descendants

IDLE = 60.0
"""Seconds without a call after which a scan process ends."""
BEGUN, LOG, PROGRESS, ENDED, RAISED = "begun", "log", "progress", "ended", "raised"
"""The kinds of messages to the parent. Each message is a pair of a kind and a value."""

_inherited_files: list[Any] = []
_KEPT_SIGNALS = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python ignores these two, so that a write raises an error instead."""
_PARENT_DECIDES = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Systemd sends SIGTERM to all processes of a service, and a terminal SIGINT. The parent then decides what to do."""


def run_child(connection: socket.socket, inherited: Any) -> NoReturn:
    """Run a scan process. It never returns, so it never touches what it has inherited from its parent."""
    try:
        _reset_signals()
        _detach(connection.fileno())
        channel = MessageChannel(connection)
        _forward_logs(channel)
        _end_with_parent(channel)
        gc.freeze()  # the collector then leaves the memory alone that both processes share
        _serve(channel, inherited)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        kill_descendants(os.getpid())  # the parent is gone
    except BaseException:  # noqa: BLE001 - the last handler of this process
        traceback.print_exc()
    finally:
        os._exit(0)


def _serve(channel: MessageChannel, inherited: Any) -> None:
    """Answer calls until none has come for a while."""
    while channel.is_readable(IDLE):
        function, arguments, limit = channel.wait_for_message()
        # The kernel ends this process when the limit is over, even if Python code never gives way and the parent is
        # dead. SIGALRM has its default action here, and neither a thread nor a handler takes part.
        signal.setitimer(signal.ITIMER_REAL, limit)
        channel.send((BEGUN, cpu_seconds()))
        try:
            answer = ENDED, function(inherited, lambda text: channel.send((PROGRESS, text)), *arguments)
        except Exception as error:
            logging.getLogger(__name__).exception("a scan failed with an unexpected error")
            answer = RAISED, repr(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(channel, *answer)


def _answer(channel: MessageChannel, kind: str, value: Any) -> None:
    try:
        channel.send((kind, value))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever pickle raises for a value that it cannot handle
        channel.send((RAISED, f"its result cannot be sent: {error!r}"))


def cpu_seconds() -> float:
    """Return the seconds of CPU time that this process and its children that have ended have used."""
    return sum(os.times()[:4])


def _reset_signals() -> None:
    """Take leave of the handlers of Celery and the CLI. A new process group keeps a terminal's Ctrl-C away."""
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - _KEPT_SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    for number in _PARENT_DECIDES:
        # A handler, and not SIG_IGN: programs that a scan starts would inherit that
        signal.signal(number, _leave_to_parent)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a line on the terminal must not stop the process
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _leave_to_parent(number: int, frame: Any) -> None:
    """Do nothing."""


def _detach(own: int) -> None:
    """Give up the parent's files and connections, so that they close when the parent closes them.

    Each descriptor then points to /dev/null. So it cannot be used by accident, and its number is not used again, which
    would be fatal when Python closes an inherited object. The standard output becomes the error output: only the
    parent writes results.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        descriptor = int(name)
        if descriptor not in (1, 2, own, null):
            try:
                os.fstat(descriptor)
            except OSError:
                continue  # the descriptor that listed the folder
            os.dup2(null, descriptor, inheritable=descriptor == 0)
    os.dup2(2, 1)
    # Fresh objects: another thread of the parent may have held a lock of the old ones, which are kept, and not closed
    _inherited_files.extend((sys.stdin, sys.stdout, sys.stderr))
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115


class _ForwardedLog(logging.handlers.QueueHandler):
    """Sends records to the parent, whose handlers write them. Two processes must not rotate one log file."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self._send((LOG, record))


def _forward_logs(channel: MessageChannel) -> None:
    logging.raiseExceptions = False  # the parent may be gone
    for logger in (logging.getLogger(), *logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers = [] if logger.propagate and logger.parent else [_ForwardedLog(channel.send)]
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(_ForwardedLog(channel.send))


def _end_with_parent(channel: MessageChannel) -> None:
    """Watch the connection from a thread. When the parent is gone, end this process and what it has started.

    While a pattern holds Python's lock, the thread cannot run. Then the timer of the kernel ends the process.
    """
    hang_up = select.poll()
    hang_up.register(channel.fileno(), 0)  # a closed connection is always reported

    def watch() -> None:
        hang_up.poll()
        kill_descendants(os.getpid())
        os._exit(0)

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()
