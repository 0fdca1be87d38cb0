"""The `web` section: who may read the dashboard, decide there, and send events over HTTP."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from dims_worker.config.base import Model, Texts
from dims_worker.config.notifications import null_as_empty
from dims_worker.config.units import Duration

MIN_TOKEN_LENGTH = 20
"""The fewest characters of a token, so that it cannot be guessed."""

_UNSET_VARIABLE = re.compile(r"\$\{[^{}]*\}")
"""A variable that is not set stays in the text. It is reported as a problem of its own."""


def _check_token(value: SecretStr) -> SecretStr:
    token = value.get_secret_value()
    if token and not _UNSET_VARIABLE.fullmatch(token):
        if len(token) < MIN_TOKEN_LENGTH:
            raise ValueError(
                f"is shorter than {MIN_TOKEN_LENGTH} characters; create a token with `openssl rand -hex 24`"
            )
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError("must be printable ASCII without spaces, because it is sent in an HTTP header")
    return value


def _check_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", host):
            raise ValueError(f"{host!r} is not a host name such as dims.example.org; omit scheme, port and path")
    return tuple(host.lower() for host in value)


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(f"{network!r} is not an IP address or network; write one such as 10.0.0.0/8") from None
    return value


Token = Annotated[SecretStr, BeforeValidator(null_as_empty), AfterValidator(_check_token)]
"""A secret from the environment. An empty token is off."""


class ProxySignIn(Model):
    """A proxy that signs people in, such as oauth2-proxy or an identity-aware load balancer."""

    header: str = Field(
        "X-Forwarded-User", pattern=r"^[A-Za-z0-9-]+$", description="The header with the person's name."
    )
    trusted: Annotated[Texts, AfterValidator(_check_networks)] = Field(
        description="Addresses or networks of the proxy. DIMS ignores the header from any other."
    )


class WebSection(Model):
    """The web section."""

    read: Literal["signed_in", "anyone"] = Field(
        "signed_in", description="`anyone`: reading needs no sign-in. Deciding always does."
    )
    tokens: dict[str, Token] = Field({}, description="A token for each person, by name. Empty: off.")
    proxy: ProxySignIn | None = Field(None, description="A proxy that signs people in.")
    events_token: Token = Field(SecretStr(""), description="The token for `POST /api/events`. Empty: off.")
    session: Duration = Field(timedelta(hours=12), description="How long a person stays signed in.")
    hosts: Annotated[Texts, AfterValidator(_check_hosts)] = Field(
        (), description="More host names of the dashboard, such as `dims.example.org`."
    )
    flower: str | None = Field(None, pattern=r"^https?://", description="The URL of Flower. `dims up` knows its own.")

    @model_validator(mode="after")
    def _tokens_differ(self) -> Self:
        """Two people with one token could decide in each other's name."""
        secrets = {f"tokens.{name}": token for name, token in self.tokens.items()} | {"events_token": self.events_token}
        owners: dict[str, str] = {}
        for name, secret in secrets.items():
            token = secret.get_secret_value()
            if token and not _UNSET_VARIABLE.fullmatch(token) and owners.setdefault(token, name) != name:
                raise ValueError(f"{owners[token]} and {name} have the same token; give each its own")
        return self

    @property
    def active_tokens(self) -> dict[str, str]:
        """Return the tokens that are set, by the name of the person."""
        tokens = {name: token.get_secret_value() for name, token in self.tokens.items()}
        return {name: token for name, token in tokens.items() if token}
