"""Who is told, by which way, of what."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from dims_worker.config.base import Model, Texts

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def _given(value: Any) -> Any:
    return "" if value is None else value  # what YAML makes of a plain ${NAME:-} without a value


def _apprise(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if url and not _URL.fullmatch(url) and not url.startswith("${"):  # a variable that is not set was blamed for that
        raise ValueError("is no Apprise URL, such as mailtos://… or slack://…")  # and is not quoted: it is secret
    return value


class Channel(Model):
    """One way to people, and what goes there."""

    url: Annotated[SecretStr, BeforeValidator(_given), AfterValidator(_apprise)] = Field(
        description="An Apprise URL, out of the environment: it is a secret. Empty: the channel is off."
    )
    tiers: tuple[Literal["approve", "notify"], ...] = Field(
        ("approve", "notify"), description="approve: what waits for a person; notify: drift and broken limits."
    )
    severities: tuple[Literal["low", "medium", "high", "urgent"], ...] = Field(
        (), description="Of these tiers only what is so severe. None: all."
    )
    stale: bool = Field(True, description="Metrics that were not measured for longer than their stale_after.")
    failures: int | None = Field(3, ge=1, description="Metrics that failed so often in a row. null: never.")
    metrics: Texts = Field(("*",), description="Patterns of metrics, and of workflows: workflow.audit.")

    @property
    def on(self) -> bool:
        """Whether there is a URL."""
        return bool(self.url.get_secret_value())


class NotifySection(Model):
    """The notify section."""

    channels: dict[str, Channel] = Field(default_factory=dict, description="By a name of your own.")

    @property
    def on(self) -> dict[str, Channel]:
        """The channels that have a URL, by name."""
        return {name: channel for name, channel in self.channels.items() if channel.on}
