"""The `notify` section: channels, and what is sent to each."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from dims_worker.config.base import Model, Patterns
from dims_worker.config.units import Duration

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def null_as_empty(value: Any) -> Any:
    """Return "" for None, which is what YAML reads in a plain `${NAME:-}` without a value."""
    return "" if value is None else value


def _check_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if url and not _URL.fullmatch(url) and not url.startswith("${"):  # an unset variable is a problem of its own
        # The message does not quote the URL, which holds a secret
        raise ValueError("is not an Apprise URL; write one such as mailtos://… or slack://…")
    return value


class Channel(Model):
    """An address that notifications go to, and which ones."""

    url: Annotated[SecretStr, BeforeValidator(null_as_empty), AfterValidator(_check_url)] = Field(
        description="An Apprise URL, from the environment because it is a secret. Empty: the channel is off."
    )
    tiers: tuple[Literal["approve", "notify"], ...] = Field(
        ("approve", "notify"), description="`approve`: values held for approval. `notify`: drift and broken limits."
    )
    severities: tuple[Literal["low", "medium", "high", "urgent"], ...] = Field(
        (), description="Only drifts of these severities. Empty: all."
    )
    stale: bool = Field(True, description="Notify of stale metrics and of silent rules.")
    failures: int | None = Field(3, ge=1, description="Notify after this many failures in a row. `null`: never.")
    metrics: Patterns = Field(("*",), description="Patterns of metrics, workflows and rules, such as `rule:nightly`.")

    @property
    def on(self) -> bool:
        """Whether the channel has a URL."""
        return bool(self.url.get_secret_value())


class NotifySection(Model):
    """The notify section."""

    channels: dict[str, Channel] = Field({}, description="Channels, by a name of your own.")
    max_messages_per_day: int = Field(
        4, ge=1, description="The most messages about one metric in 24 hours. The rest goes into a digest."
    )
    quiet_period: Duration = Field(
        timedelta(hours=6), gt=timedelta(0), description="An incident that comes back within this time flaps."
    )

    @property
    def on(self) -> dict[str, Channel]:
        """Return the channels that have a URL, by name."""
        return {name: channel for name, channel in self.channels.items() if channel.on}
