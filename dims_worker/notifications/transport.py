"""Carries a message to a channel: Apprise, and what it takes that its URL stays secret and nobody waits for it.

Apprise is loaded when something is sent, not before: it brings about two hundred services. All that it does runs in a
thread of its own, for two reasons. A service that drips its answer is given up, which nothing in Python could do from
within; and of what is logged in that thread nothing reaches a log, because Apprise, urllib3 and others write URLs with
their tokens there. Of a failure only a reason in our own words comes out.
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

THREAD = "courier"
LONGEST = timedelta(seconds=30)
"""A service that has not answered by then is given up."""

T = TypeVar("T")


class Transport:
    """The way to one channel.

    Raises:
        NotSent: Apprise is not installed, or does not know such a URL.
    """

    def __init__(self, url: SecretStr) -> None:
        self._apprise = _unheard(lambda: _open(url.get_secret_value()))
        self.service = str(self._apprise[0].service_name)
        """What sort of service it is, such as `E-Mail`."""

    @property
    def longest(self) -> int:
        """The characters that the service takes in a message."""
        return int(self._apprise[0].body_maxlen)

    def carry(self, title: str, body: str, tone: str, longest: timedelta = LONGEST) -> None:
        """Send a plain text.

        Raises:
            NotSent: it was not taken, as far as is known, and why.
        """
        try:
            answer = _unheard(
                lambda: self._apprise.notify(body=body, title=title, notify_type=tone, body_format="text"), longest
            )
        except TimeoutError:
            raise NotSent(f"{self.service}: no answer within {longest.total_seconds():g} s") from None
        if not answer:
            raise NotSent(f"{self.service}: {_why(' '.join(entry.message for entry in answer.logs()))}")


def _open(url: str) -> Apprise:
    try:
        import apprise
    except ImportError:
        raise NotSent("Apprise is not installed: pip install 'dims-worker[notify]'") from None
    # No pool of threads that a process would wait for at its end, and no deadline but ours
    asset = apprise.AppriseAsset(
        app_id="DIMS", app_desc="Data Inventory Management System", app_url="", async_mode=False, service_timeout=0
    )
    opened = apprise.Apprise(asset=asset)
    if not opened.add(url) or len(opened) != 1:
        raise NotSent("its URL is none that Apprise knows (one URL a channel)")
    # A text that is too long for the service is sent in parts, unless the URL says otherwise
    if "overflow=" not in url:
        opened[0].overflow_mode = apprise.OverflowMode.SPLIT
    return opened


def _why(said: str) -> str:
    """Apprise's lines in our own words: they may quote what is secret."""
    if status := re.search(r"error=(\d{3})\b", said):
        return f"it answered HTTP {status[1]}"
    return "the connection failed" if "onnection error" in said else "it did not take the message"


class _CapturedLog(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != THREAD


_UNHEARD = _CapturedLog()


def _unheard(act: Callable[[], T], longest: timedelta | None = None) -> T:
    """What `act` gives, in a thread whose log lines reach nobody. Raises TimeoutError, and leaves the thread behind."""
    for handler in (*logging.getLogger().handlers, *filter(None, [logging.lastResort])):
        if _UNHEARD not in handler.filters:
            handler.addFilter(_UNHEARD)
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((act(), None))
        except NotSent as error:
            found.append((None, error))
        except Exception as error:  # noqa: BLE001 - a plugin's own words may hold the URL
            found.append((None, NotSent(f"it broke down: {type(error).__name__}")))

    thread = threading.Thread(target=run, name=THREAD, daemon=True)
    thread.start()
    thread.join(longest.total_seconds() if longest else None)
    if not found:
        raise TimeoutError
    answer, error = found[0]
    if error is not None:
        raise error
    return answer  # type: ignore[no-any-return]
