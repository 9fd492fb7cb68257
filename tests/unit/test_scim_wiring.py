"""What of `type: scim` is refused before anybody is let in, and what `aim check` warns of."""

from __future__ import annotations

import pytest

from aim.check import guessable
from aim.config.root import Config
from aim.config.sources import ScimSource
from aim.errors import ConfigError
from aim.scim import refuse_unreachable, username_of
from tests.unit.worlds import a_config

LISTEN = {"host": "127.0.0.1", "port": 8080}
LONG = "t" * 20


def scim(*, listen: bool = True, username: str = "userName", token: str = LONG, **keys: object) -> Config:
    client = {"id": "idp", "token": token, "attributeMapping": {"username": username}}
    source = {"type": "scim", "client": client, **keys}
    rest = a_config().model_dump(include={"homeserver", "appservice"}, exclude_unset=True)
    return Config.model_validate({**rest, "source": source, **({"listen": LISTEN} if listen else {})})


def source_of(config: Config) -> ScimSource:
    assert isinstance(config.source, ScimSource)
    return config.source


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (scim(listen=False), "not served anywhere"),
        (scim(port=8080), "is the port of `listen` too: 8080"),
        (scim(base_url="/metrics"), "/metrics is something else at `listen`"),
        (scim(base_url="/_matrix/scim"), "/_matrix is something else"),
    ],
)
def test_where_nobody_could_reach_it(config: Config, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as told:
        refuse_unreachable(config, source_of(config))
    assert told.value.remedy


@pytest.mark.parametrize(
    "config",
    [
        scim(),
        scim(base_url="/scim/v2"),
        scim(listen=False, port=8080),
        scim(port=8040, base_url="/metrics"),
    ],
)
def test_where_it_can_be_reached(config: Config) -> None:
    refuse_unreachable(config, source_of(config))


def test_a_username_that_is_no_attribute() -> None:
    with pytest.raises(ConfigError, match="'mailNickname' is no attribute") as told:
        username_of(source_of(scim(username="mailNickname")))
    assert "externalId" in told.value.remedy
    assert username_of(source_of(scim(username="externalId"))).of({"externalId": "mia"}) == "mia"


def test_tokens_that_can_be_guessed() -> None:
    assert list(guessable(source_of(scim()))) == []
    [finding] = guessable(source_of(scim(token=LONG[1:])))
    assert "fewer than 20 characters" in finding.message
    assert "aim scim token new" in finding.remedy
    assert LONG[1:] not in finding.message + finding.remedy
