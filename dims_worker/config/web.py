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

    header: str = Field(
        "X-Forwarded-User", pattern=r"^[A-Za-z0-9-]+$", description="The header with the person's name."
    )
    trusted: Annotated[Texts, AfterValidator(_networks)] = Field(
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
    hosts: Annotated[Texts, AfterValidator(_hosts)] = Field(
        (), description="More host names of the dashboard, such as `dims.example.org`."
    )
    flower: str | None = Field(None, pattern=r"^https?://", description="The URL of Flower. `dims up` knows its own.")

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
