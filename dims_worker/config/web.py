"""Who may look at the page, who may decide there, and who may send events over HTTP."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from dims_worker.config.base import Model, Texts
from dims_worker.config.units import Duration

SHORTEST = 20
"""A token has at least so many characters: nobody guesses it, however often they try."""


_UNSET = re.compile(r"\$\{[^{}]*\}")
"""A variable that is not set, which was blamed for that."""


def _given(value: Any) -> Any:
    return "" if value is None else value  # what YAML makes of a plain ${NAME:-} without a value


def _token(value: SecretStr) -> SecretStr:
    token = value.get_secret_value()
    if token and not _UNSET.fullmatch(token):
        if len(token) < SHORTEST:
            raise ValueError(f"is shorter than {SHORTEST} characters: `openssl rand -hex 24` draws a good one")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError("may hold printable ASCII without spaces only: it travels in a header")
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for one in value:
        if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", one):
            raise ValueError(f"{one!r} is not a name such as dims.example.org: without scheme, port and path")
    return tuple(one.lower() for one in value)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for one in value:
        try:
            ipaddress.ip_network(one)
        except ValueError:
            raise ValueError(f"{one!r} is neither an address nor a network such as 10.0.0.0/8") from None
    return value


Token = Annotated[SecretStr, BeforeValidator(_given), AfterValidator(_token)]
"""A secret out of the environment. Empty: it is off."""


class ProxySignIn(Model):
    """A proxy that has signed people in already, such as oauth2-proxy or an identity-aware load balancer."""

    header: str = Field("X-Forwarded-User", pattern=r"^[A-Za-z0-9-]+$", description="It holds the person's name.")
    trusted: Annotated[Texts, AfterValidator(_networks)] = Field(
        description="Addresses or networks that the header is believed from; from any other it is not read."
    )


class WebSection(Model):
    """The web section."""

    read: Literal["signed_in", "anyone"] = Field(
        "signed_in", description="anyone: who reaches the page may look at it; to decide, all sign in."
    )
    tokens: dict[str, Token] = Field(default_factory=dict, description="A person's name and token.")
    proxy: ProxySignIn | None = Field(None, description="A proxy that says who somebody is.")
    events_token: Token = Field(SecretStr(""), description="What producers send to POST /api/events. Empty: it is off.")
    session: Duration = Field(timedelta(hours=12), description="How long somebody stays signed in.")
    hosts: Annotated[Texts, AfterValidator(_hosts)] = Field(
        (), description="Names it is reached by beside this machine's, such as dims.example.org."
    )
    flower: str | None = Field(None, pattern=r"^https?://", description="Where people reach Flower.")

    @model_validator(mode="after")
    def _each_its_own(self) -> Self:
        """One token of two people would let one decide in the other's name."""
        seen: dict[str, str] = {}
        for name, token in (*((f"tokens.{name}", one) for name, one in self.tokens.items()),
                            ("events_token", self.events_token)):  # fmt: skip
            said = token.get_secret_value()
            if said and not _UNSET.fullmatch(said) and seen.setdefault(said, name) != name:
                raise ValueError(f"{seen[said]} and {name} are the same token: each has its own")
        return self

    @property
    def named(self) -> dict[str, str]:
        """The tokens that are set, by the name of their person."""
        said = {name: token.get_secret_value() for name, token in self.tokens.items()}
        return {name: token for name, token in said.items() if token}
