"""What of `type: scim` is refused before anybody is let in, and what `aim check` warns of."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from aim.check.scim import guessable
from aim.config.root import Config
from aim.config.sources import ScimSource
from aim.errors import ConfigError
from aim.scim import refuse_unreachable, settle_mapping, username_of
from tests.unit.worlds import a_config

if TYPE_CHECKING:
    from aim.store.scim import LocalpartOf, PostgresScim

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
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


@pytest.mark.parametrize(
    ("username", "why", "instead"),
    [
        ("emails", "has parts", 'write emails.value, or one of them, such as emails[type eq "work"].value'),
        ('emails[type eq "work"]', "has parts", 'write emails[type eq "work"].value'),
        ("name", "has parts", "write name.familyName"),
        (f"{ENTERPRISE}:manager", "has parts", f"write {ENTERPRISE}:manager.value"),
        ("schemas", "is a list", "name one such as userName or externalId"),
    ],
)
def test_a_username_that_is_no_single_text(username: str, why: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=why) as told:
        username_of(source_of(scim(username=username)))
    assert told.value.remedy == instead


@pytest.mark.parametrize(
    "username",
    ["emails.value", 'emails[type eq "work"].value', "name.familyName", f"{ENTERPRISE}:manager.value"],
)
def test_a_username_that_names_a_part(username: str) -> None:
    document = {
        "userName": "mia",
        "emails": [{"value": "mia", "type": "work"}],
        "name": {"familyName": "mia"},
        ENTERPRISE: {"manager": {"value": "mia"}},
    }
    assert username_of(source_of(scim(username=username))).localpart(document) == "mia"


def test_a_document_that_is_no_user_has_no_localpart() -> None:
    username = username_of(source_of(scim(username='emails[type eq "work"].value')))
    assert username.localpart({"userName": "mia", "emails": "mia"}) is None


class _Kept:
    """What is kept of localparts, without a database."""

    def __init__(self, mapping: str | None, document: dict[str, object], localpart: str) -> None:
        self.kept, self.localpart, self.settled = mapping, localpart, 0
        self._document = document

    async def mapping(self) -> str | None:
        return self.kept

    async def settle_localparts(self, mapping: str, localpart_of: LocalpartOf) -> int:
        made = localpart_of(self._document)
        changed = made != self.localpart
        self.kept, self.localpart, self.settled = mapping, str(made), self.settled + 1
        return int(changed)


@pytest.mark.parametrize(
    ("before", "external", "level", "text"),
    [
        ("userName", "m-17", "warning", "is externalId, and was userName: 1 who were pushed have another"),
        (None, "m-17", "warning", "is externalId: 1 who were pushed have another"),
        ("userName", "mia", "info", "is externalId, and was userName: nobody's localpart changed"),
        (None, "mia", None, ""),
    ],
)
async def test_another_username_makes_localparts_anew(
    before: str | None, external: str, level: str | None, text: str
) -> None:
    source = source_of(scim(username="externalId"))
    kept = _Kept(before, {"userName": "mia", "externalId": external}, "mia")
    with capture_logs() as told:
        for _ in range(2):
            await settle_mapping(cast("PostgresScim", kept), source, username_of(source))
    assert (kept.localpart, kept.kept, kept.settled) == (external, "externalId", 1)
    assert [entry["log_level"] for entry in told] == ([level] if level else [])
    assert all(text in entry["event"] for entry in told)


def test_tokens_that_can_be_guessed() -> None:
    assert list(guessable(source_of(scim()))) == []
    [finding] = guessable(source_of(scim(token=LONG[1:])))
    assert "fewer than 20 characters" in finding.message
    assert "aim scim token new" in finding.remedy
    assert LONG[1:] not in finding.message + finding.remedy
