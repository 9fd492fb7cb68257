"""`aim check` of the homeserver, on a real Synapse: what is well, and each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from mautrix.api import PathBuilder

from aim.demo.homeserver import free_port
from aim.errors import HomeserverRefused
from aim.matrix.check import Finding, Verdict, _uses_mas, check
from aim.matrix.transport import ReadTransport
from tests.contract.test_matrix_homeserver import settings
from tests.servers.mas import NewMas
from tests.servers.proxy import NewProxy, Proxy, Request
from tests.servers.synapse import Homeserver


@pytest.fixture
async def proxy(homeserver: Homeserver, new_proxy: NewProxy) -> Proxy:
    return await new_proxy(homeserver.base_url)


async def findings(
    homeserver: Homeserver,
    proxy: Proxy,
    *,
    manages_accounts: bool = False,
    registers_users: bool = False,
    **changes: Any,
) -> dict[str, Finding]:
    ours = settings(homeserver, **{"url": proxy.url, **changes})
    found = await check(ours, manages_accounts=manages_accounts, registers_users=registers_users)
    assert {request.method for request in proxy.requests} <= {"GET"}
    assert all(finding.remedy for finding in found if finding.verdict is not Verdict.OK)
    return {finding.name: finding for finding in found}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.verdict.value for name, finding in found.items()}


def registration(request: Request) -> bool:
    return request.path.endswith("/register/available")


async def test_all_is_well(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy, admin_user="root")
    assert verdicts(found) == {
        "homeserver": "ok",
        "as_token": "ok",
        "auth": "ok",
        "acting as users": "ok",
        "accounts": "ok",
        "registration": "ok",
        "room version": "ok",
    }
    assert "Synapse 1." in found["homeserver"].message
    assert homeserver.bot in found["as_token"].message
    assert homeserver.admin in found["accounts"].message
    assert "12" in found["room version"].message


async def test_no_admin(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy)
    assert found["accounts"].verdict is Verdict.WARN
    assert "admin_user" in found["accounts"].remedy
    assert (await findings(homeserver, proxy, auth="mas"))["accounts"].verdict is Verdict.OK


async def test_nobody_there(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy, url=f"http://127.0.0.1:{free_port()}")
    assert verdicts(found) == {"homeserver": "fail"}


async def test_something_else_there(homeserver: Homeserver, proxy: Proxy) -> None:
    proxy.fail(lambda request: request.path.endswith("/versions"), status=404, errcode="M_UNRECOGNIZED")
    found = await findings(homeserver, proxy)
    assert verdicts(found) == {"homeserver": "fail"}
    assert "homeserver.url" in found["homeserver"].remedy


async def test_a_wrong_token(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy, as_token="wrong")
    assert verdicts(found) == {"homeserver": "ok", "as_token": "fail"}
    assert "registration" in found["as_token"].remedy


async def test_a_wrong_server_name(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy, server_name="example.org", bot="@aim:example.org")
    assert verdicts(found) == {"homeserver": "ok", "as_token": "fail"}
    assert homeserver.bot in found["as_token"].message
    assert "@aim:example.org" in found["as_token"].message


async def test_no_actor(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy, actor_token=None)
    assert found["acting as users"].verdict is Verdict.FAIL
    assert "actor_token" in found["acting as users"].remedy
    await homeserver.request(
        "POST",
        "/_matrix/client/v3/register",
        {
            "type": "m.login.application_service",
            "username": homeserver.appservice.sender_localpart,
            "inhibit_login": True,
        },
        token=homeserver.as_token,
    )
    await homeserver.as_admin("PUT", f"/_synapse/admin/v1/users/{homeserver.bot}/admin", {"admin": True})
    # A bot that may list the accounts does not need to ask each person.
    found = await findings(homeserver, proxy, actor_token=None)
    assert found["acting as users"].verdict is Verdict.WARN
    assert found["accounts"].verdict is Verdict.OK


async def test_registration(homeserver: Homeserver, proxy: Proxy) -> None:
    answers = [
        (400, "M_USER_IN_USE", "warn"),
        (403, "M_FORBIDDEN", "ok"),
        (404, "M_UNRECOGNIZED", "ok"),
        (500, "M_UNKNOWN", "fail"),
    ]
    for status, errcode, verdict in answers:
        proxy.fail(registration, times=None, status=status, errcode=errcode)
        assert verdicts(await findings(homeserver, proxy))["registration"] == verdict
        proxy.behave()


async def test_a_room_version_that_the_homeserver_cannot_make(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await check(settings(homeserver, url=proxy.url), ["10", "99"])
    assert found[-1].verdict is Verdict.FAIL
    assert "99" in found[-1].message


async def test_a_homeserver_that_goes_away_midway(homeserver: Homeserver, proxy: Proxy) -> None:
    proxy.fail(lambda request: request.path.startswith("/_synapse/admin/v3"), times=None, status=500)
    found = await check(settings(homeserver, url=proxy.url))
    assert [finding.verdict.value for finding in found] == ["ok", "ok", "ok", "fail"]


# Who keeps the accounts, and whether we may change them


async def test_managing_accounts_takes_an_admin(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy, manages_accounts=True, admin_user="root")
    assert found["managing accounts"].verdict is Verdict.OK
    assert homeserver.admin in found["managing accounts"].message
    found = await findings(homeserver, proxy, manages_accounts=True)
    assert found["managing accounts"].verdict is Verdict.FAIL
    assert "homeserver.admin_user" in found["managing accounts"].remedy
    assert "managing accounts" not in await findings(homeserver, proxy)


async def test_making_accounts_takes_an_appservice_that_acts(homeserver: Homeserver, proxy: Proxy) -> None:
    found = await findings(homeserver, proxy, registers_users=True)
    assert found["making accounts"].verdict is Verdict.OK
    assert "actor_token" in found["making accounts"].message
    found = await findings(homeserver, proxy, registers_users=True, actor_token=None)
    assert found["making accounts"].verdict is Verdict.FAIL
    assert "actor_token" in found["making accounts"].remedy
    assert "making accounts" not in await findings(homeserver, proxy)


async def test_making_accounts_takes_an_admin_client_of_mas(
    homeserver: Homeserver, proxy: Proxy, new_mas: NewMas
) -> None:
    mas = await new_mas()
    found = await findings(homeserver, proxy, auth="mas", mas=mas.credentials, registers_users=True)
    assert found["making accounts"].verdict is Verdict.OK
    assert "Matrix Authentication Service" in found["making accounts"].message
    mas.is_admin_client = False
    found = await findings(homeserver, proxy, auth="mas", mas=mas.credentials, registers_users=True)
    assert found["making accounts"].verdict is Verdict.FAIL
    assert "admin_clients" in found["making accounts"].remedy


async def test_a_homeserver_without_mas(homeserver: Homeserver, proxy: Proxy) -> None:
    """It does not know `/auth_metadata`, and has logins of its own."""
    found = await findings(homeserver, proxy, auth="mas")
    assert found["auth"].verdict is Verdict.FAIL
    assert "auth: synapse" in found["auth"].remedy


def metadata(request: Request) -> bool:
    return request.path.endswith("/auth_metadata")


def login(request: Request) -> bool:
    return request.path.endswith("/login")


async def test_a_homeserver_with_mas(homeserver: Homeserver, proxy: Proxy, new_mas: NewMas) -> None:
    """Synapse has no `/login` then."""
    proxy.fail(login, times=None, status=404, errcode="M_UNRECOGNIZED")
    found = await findings(homeserver, proxy, admin_user="root")
    assert found["auth"].verdict is Verdict.FAIL
    assert "auth: mas" in found["auth"].remedy
    mas = await new_mas()
    found = await findings(homeserver, proxy, auth="mas", mas=mas.credentials, manages_accounts=True)
    assert verdicts(found) == {
        "homeserver": "ok",
        "as_token": "ok",
        "auth": "ok",
        "acting as users": "ok",
        "accounts": "ok",
        "managing accounts": "ok",
        "registration": "ok",
        "room version": "ok",
    }
    found = await findings(homeserver, proxy, auth="mas", manages_accounts=True)
    assert found["managing accounts"].verdict is Verdict.FAIL
    assert "homeserver.mas.url" in found["managing accounts"].remedy
    mas.is_admin_client = False
    found = await findings(homeserver, proxy, auth="mas", mas=mas.credentials, manages_accounts=True)
    assert found["managing accounts"].verdict is Verdict.FAIL
    assert "admin_clients" in found["managing accounts"].remedy
    away = replace(mas.credentials, url=f"http://127.0.0.1:{free_port()}")
    found = await findings(homeserver, proxy, auth="mas", mas=away, manages_accounts=True)
    assert found["managing accounts"].verdict is Verdict.FAIL
    assert "homeserver.mas.url" in found["managing accounts"].remedy


@pytest.mark.parametrize(
    ("answers", "uses_mas"),
    [
        ({"v1/auth_metadata": {"issuer": "https://account.example.test/"}}, True),
        ({"v3/login": {"flows": [{"type": "m.login.sso", "oauth_aware_preferred": True}]}}, True),
        ({"v3/login": {"flows": [{"type": "m.login.password"}]}}, False),
        ({"v3/login": {"flows": None}}, False),
        ({}, True),
    ],
)
async def test_who_keeps_the_accounts(answers: Mapping[str, object], uses_mas: bool) -> None:
    async def fetch(path: PathBuilder, query: object, user_id: object) -> object:
        name = str(path).removeprefix("_matrix/client/")
        if name not in answers:
            raise HomeserverRefused(f"no {name}", status=404, errcode="M_UNRECOGNIZED")
        return answers[name]

    assert await _uses_mas(ReadTransport(fetch)) is uses_mas


async def test_nobody_tells_who_keeps_the_accounts(homeserver: Homeserver, proxy: Proxy) -> None:
    proxy.fail(metadata, times=None, status=403, errcode="M_FORBIDDEN")
    found = await findings(homeserver, proxy, admin_user="root")
    assert found["auth"].verdict is Verdict.WARN
    assert found["room version"].verdict is Verdict.OK
