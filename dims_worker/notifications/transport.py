"""Send a message to a channel with Apprise, so that the URL stays secret and a slow service blocks nothing.

Apprise is imported when something is sent, because it loads about two hundred services. It runs in a thread of its own
for two reasons. DIMS can abandon a service that never finishes its answer. And DIMS can drop everything that is logged
in that thread, because Apprise, urllib3 and others log URLs with their tokens. DIMS reports failures in its own text.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from dims_worker.errors import NotSent

if TYPE_CHECKING:
    from apprise import Apprise

THREAD = "transport"
TIMEOUT = timedelta(seconds=30)
"""How long a service may take to answer."""

T = TypeVar("T")


class Transport:
    """Sends to one channel.

    Raises:
        NotSent: Apprise is not installed, or does not know the URL.
    """

    def __init__(self, url: SecretStr) -> None:
        self._apprise = _run_silently(lambda: _open(url.get_secret_value()))
        self.service = str(self._apprise[0].service_name)
        """The kind of service, such as `E-Mail`."""
        self.longest = int(self._apprise[0].body_maxlen)
        """The most characters that the service accepts in a message."""

    def send(self, title: str, body: str, tone: str, timeout: timedelta = TIMEOUT) -> None:
        """Send a plain text.

        Raises:
            NotSent: the service did not accept it, as far as DIMS knows, and why.
        """
        try:
            answer = _run_silently(
                lambda: self._apprise.notify(body=body, title=title, notify_type=tone, body_format="text"), timeout
            )
        except TimeoutError:
            raise NotSent(f"{self.service}: no answer within {timeout.total_seconds():g} s") from None
        if not answer:
            raise NotSent(f"{self.service}: {_reason(' '.join(entry.message for entry in answer.logs()))}")


def _open(url: str) -> Apprise:
    try:
        import apprise
    except ImportError:
        raise NotSent("Apprise is not installed: pip install 'dims-worker[notify]'") from None
    # No pool of threads that would delay the end of a process, and no timeout but ours
    asset = apprise.AppriseAsset(
        app_id="DIMS", app_desc="Data Inventory Management System", app_url="", async_mode=False, service_timeout=0
    )
    opened = apprise.Apprise(asset=asset)
    if not opened.add(url) or len(opened) != 1:
        raise NotSent("Apprise does not know its URL (set one URL for each channel)")
    # Send a text that is too long for the service in parts, unless the URL says otherwise
    if "overflow=" not in url:
        opened[0].overflow_mode = apprise.OverflowMode.SPLIT
    return opened


def _reason(lines: str) -> str:
    """Return a reason in DIMS's own text: the lines of Apprise may contain secrets."""
    if status := re.search(r"error=(\d{3})\b", lines):
        return f"it answered HTTP {status[1]}"
    return "the connection failed" if "onnection error" in lines else "the service did not accept the message"


class _CapturedLog(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != THREAD


_DROP = _CapturedLog()


def _run_silently(call: Callable[[], T], timeout: timedelta | None = None) -> T:
    """Return the result of `call`, run in a thread whose log lines are dropped. Raises TimeoutError, and abandons the
    thread."""
    for handler in (*logging.getLogger().handlers, *filter(None, [logging.lastResort])):
        if _DROP not in handler.filters:
            handler.addFilter(_DROP)
    results: list[Any] = []

    def run() -> None:
        try:
            results.append((call(), None))
        except NotSent as error:
            results.append((None, error))
        except Exception as error:  # noqa: BLE001 - the text of a plugin may contain the URL
            results.append((None, NotSent(f"Apprise failed with {type(error).__name__}")))

    thread = threading.Thread(target=run, name=THREAD, daemon=True)
    thread.start()
    thread.join(timeout.total_seconds() if timeout else None)
    if not results:
        raise TimeoutError
    answer, error = results[0]
    if error is not None:
        raise error
    return answer  # type: ignore[no-any-return]
