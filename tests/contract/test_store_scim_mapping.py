"""Localparts in a real Postgres after `attributeMapping.username` has changed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from aim.check.scim import pushed_findings
from aim.config.root import Config
from aim.ports.scim import ScimKind
from aim.scim import serving, unapplied
from aim.store import scim as stored
from aim.store.scim import PostgresScim
from tests.contract.scim import group, scim_store, user
from tests.unit.worlds import a_config


def external(document: Mapping[str, object]) -> str | None:
    """The localpart by `externalId`."""
    found = document.get("externalId")
    return found if isinstance(found, str) else None


async def filled(store: PostgresScim, count: int = 5) -> None:
    for number in range(count):
        document = {"userName": f"u{number}", "externalId": f"e{number}", "displayName": "\x00\ud800"}
        await store.create(user(f"u{number}", f"id-{number}", localpart=f"u{number}", document=document))
    await store.create(user("zoe", "id-zoe", localpart="zoe", document={"userName": "zoe"}))
    await store.create(user("e", "id-e", localpart="same", document={"userName": "e", "externalId": "same"}))
    await store.create(group("g", "id-g", document={"displayName": "g", "externalId": "g"}), ["id-0"])


def configured(dsn: str, username: str) -> Config:
    """For the client `corp`, whose users are called by that attribute."""
    client = {"id": "corp", "token": "t" * 20, "attributeMapping": {"username": username}}
    rest = a_config().model_dump(include={"homeserver", "appservice"}, exclude_unset=True)
    source = {"type": "scim", "port": 8040, "client": client}
    return Config.model_validate({**rest, "source": source, "database": {"url": dsn}})


async def serve(config: Config) -> None:
    """As `aim run` begins."""

    async def outcome(_: str | None) -> None: ...

    async with serving(config, lambda _: None, outcome):
        pass


async def test_aim_run_applies_another_username_and_others_warn_until_then(dsn: str) -> None:
    async with scim_store(dsn) as store:
        await filled(store)
        by_name, by_external = configured(dsn, "userName"), configured(dsn, "externalId")
        # Nobody knows yet what they were made from.
        assert await unapplied(by_external) is None
        await serve(by_name)
        assert await unapplied(by_name) is None
        warning = await unapplied(by_external)
        assert warning is not None
        assert "username is externalId, but all localparts are still made from userName" in warning
        assert [finding.message for finding in await pushed_findings(by_external)][1:] == [warning]
        await serve(by_external)
        assert await unapplied(by_external) is None
        assert [finding.message for finding in await pushed_findings(by_external)][1:] == []
        localparts = {found.id: found.localpart for found in (await store.snapshot()).users}
        assert localparts == {**{f"id-{n}": f"e{n}" for n in range(5)}, "id-zoe": None, "id-e": "same"}


async def test_all_are_made_anew_at_once(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_ROWS_AT_ONCE", 2)
    async with scim_store(dsn) as store, scim_store(dsn, "other") as other:
        await other.create(user("x", localpart="x", document={"userName": "x", "externalId": "y"}))
        await filled(store)
        assert await store.mapping() is None
        before, revision = await store.snapshot(), await store.revision()
        written = (await store.growth()).last_write
        assert await store.settle_localparts("externalId", external) == 6
        assert await store.mapping() == "externalId"
        after = await store.snapshot()
        localparts = {found.id: found.localpart for found in after.users}
        assert localparts == {**{f"id-{n}": f"e{n}" for n in range(5)}, "id-zoe": None, "id-e": "same"}
        # Clients see nothing of it; a running daemon does.
        assert [(found.version, found.modified) for found in after.users] == [
            (found.version, found.modified) for found in before.users
        ]
        assert (await store.growth()).last_write == written
        assert await store.revision() > revision
        assert [found.localpart for found in after.groups] == [None]
        assert after.members == {"id-g": ("id-0",)}
        assert [found.localpart for found in (await other.snapshot()).users] == ["x"]
        assert await other.mapping() is None


async def test_what_is_the_same_already_is_no_change(dsn: str) -> None:
    async with scim_store(dsn) as store:
        await filled(store)
        await store.settle_localparts("externalId", external)
        revision = await store.revision()
        assert await store.settle_localparts("again", external) == 0
        assert await store.mapping() == "again"
        assert await store.revision() == revision


async def test_all_of_them_or_none(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_ROWS_AT_ONCE", 2)

    def breaks(document: Mapping[str, object]) -> str | None:
        if document["userName"] == "u4":
            raise RuntimeError
        return external(document)

    async with scim_store(dsn) as store:
        await filled(store)
        with pytest.raises(RuntimeError):
            await store.settle_localparts("externalId", breaks)
        assert await store.mapping() is None
        found = await store.get(ScimKind.USER, "id-0")
        assert found is not None
        assert found.localpart == "u0"
