"""Tries for real what `aim` needs of the homeserver. For `aim check`; reads only.

In: the homeserver as configured. Out: one Finding per question, each with its remedy. Asks one question after
the other and ends where the next one makes no sense any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from enum import StrEnum

from mautrix.api import Path, SynapseAdminPath

from aim.errors import AimError, HomeserverError, HomeserverRefused
from aim.matrix import mxid
from aim.matrix.account_server import AccountServer
from aim.matrix.accounts import AccountsWay
from aim.matrix.client import Connect, Homeserver, accounts, open_accounts, open_getter
from aim.matrix.parse import mapping, strings
from aim.matrix.refusals import one_line, somebody_else
from aim.matrix.retrying import Retries
from aim.matrix.rooms import RoomVersions
from aim.matrix.transport import ReadTransport

_QUICK = Connect(retries=Retries(tries=2))
_NOBODY = "aim-check-nobody"
"""A localpart that no account has: asking about it changes nothing and tells what we may."""
_FIRST_VERSION_WITH_RESTRICTED_ROOMS = 8
_LEGACY_LOGIN_OF_MAS = (
    "oauth_aware_preferred",
    "delegated_oidc_compatibility",
    "org.matrix.msc3824.delegated_oidc_compatibility",
)


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question."""

    name: str
    verdict: Verdict
    message: str
    remedy: str = ""


async def check(
    homeserver: Homeserver,
    room_versions: Collection[str] = (),
    connect: Connect = _QUICK,
    *,
    manages_accounts: bool = False,
    registers_users: bool = False,
) -> list[Finding]:
    """Everything about the homeserver. `room_versions`: those that the configuration asks for.
    `manages_accounts`: whether it asks that accounts follow the directory (`userProvisioner`);
    `registers_users`: that they are made (`source.register_users`).

    Raises ConfigError if the URL or a token can't be one; all other failures are findings.
    """
    findings: list[Finding] = []
    async with open_getter(homeserver, connect) as transport, open_accounts(homeserver, connect) as server:
        try:
            # Not a comprehension: what was found before an error stays.
            asked = _Asked(frozenset(room_versions), server, manages_accounts, registers_users)
            async for finding in _findings(homeserver, transport, asked):
                findings += (finding,)
        except HomeserverError as error:
            findings.append(_failed("homeserver", error))
    return findings


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the configuration asks of the homeserver."""

    room_versions: frozenset[str]
    server: AccountServer | None
    """Whoever keeps the accounts."""
    manages_accounts: bool
    registers_users: bool


async def _findings(
    homeserver: Homeserver, transport: ReadTransport, asked: _Asked
) -> AsyncIterator[Finding]:
    reached = await _reachable(homeserver, transport)
    yield reached
    if reached.verdict is Verdict.FAIL:
        return
    token = await _as_token(homeserver, transport)
    yield token
    if token.verdict is Verdict.FAIL:
        return
    yield await _auth(homeserver, transport)
    way, found = await _accounts(homeserver, transport, asked.server)
    acting = await _acting(homeserver, transport, way)
    yield acting
    yield found
    if asked.manages_accounts:
        yield await _managing(homeserver, asked.server)
    if asked.registers_users:
        yield await _making(homeserver, asked.server, acting)
    yield await _registration(transport)
    yield await _room_versions(transport, asked.room_versions)


async def _reachable(homeserver: Homeserver, transport: ReadTransport) -> Finding:
    try:
        versions = strings(mapping(await transport.get(Path.versions)).get("versions"))
    except HomeserverError as error:
        if isinstance(error, HomeserverRefused) and error.status == 401:
            # It looks at the token even here, so it is a homeserver. The next question is about the token.
            return Finding("homeserver", Verdict.OK, f"answers at {homeserver.url}")
        return _failed("homeserver", error)
    if not versions:
        return Finding(
            "homeserver",
            Verdict.FAIL,
            f"what answers at {homeserver.url} is not a Matrix homeserver",
            "check homeserver.url",
        )
    return Finding("homeserver", Verdict.OK, f"{await _software(transport)} answers, Matrix {versions[-1]}")


async def _software(transport: ReadTransport) -> str:
    try:
        answer = mapping(await transport.get(SynapseAdminPath.v1.server_version))
    except HomeserverError:
        # Not Synapse, or its admin API is hidden from us: nothing depends on it.
        return "a homeserver"
    return f"Synapse {one_line(str(answer.get('server_version', '')))}".rstrip()


async def _as_token(homeserver: Homeserver, transport: ReadTransport) -> Finding:
    try:
        answer = mapping(await transport.get(Path.v3.account.whoami))
    except HomeserverError as error:
        return _failed("as_token", error)
    user = one_line(str(answer.get("user_id")))
    if user != homeserver.bot:
        return _failed("as_token", somebody_else(user, homeserver.bot))
    return Finding("as_token", Verdict.OK, f"accepted, we are {user}")


async def _auth(homeserver: Homeserver, transport: ReadTransport) -> Finding:
    """Whether the accounts are where the configuration says: in Synapse, or in MAS."""
    name = "auth"
    try:
        uses_mas = await _uses_mas(transport)
    except HomeserverError as error:
        return Finding(
            name,
            Verdict.WARN,
            f"can't tell who keeps the accounts: {error.message}",
            f"make sure yourself that it is as homeserver.auth says ({homeserver.auth})",
        )
    if uses_mas and homeserver.auth == "synapse":
        return Finding(
            name,
            Verdict.FAIL,
            "the Matrix Authentication Service keeps the accounts, homeserver.auth says synapse",
            "set `homeserver.auth: mas`, and homeserver.mas to its admin API",
        )
    if not uses_mas and homeserver.auth == "mas":
        return Finding(
            name,
            Verdict.FAIL,
            "the homeserver keeps the accounts itself, homeserver.auth says mas",
            "set `homeserver.auth: synapse`",
        )
    where = "the Matrix Authentication Service" if uses_mas else "the homeserver itself"
    return Finding(name, Verdict.OK, f"accounts are kept by {where}")


async def _uses_mas(transport: ReadTransport) -> bool:
    """By `GET /auth_metadata` (Client-Server API, Server metadata discovery), which a Synapse without MAS
    does not know; for older ones by `GET /login`, which one with MAS does not know."""
    try:
        return "issuer" in mapping(await transport.get(Path.v1.auth_metadata))
    except HomeserverRefused as error:
        if error.status != 404:
            raise
    try:
        flows = mapping(await transport.get(Path.v3.login)).get("flows")
    except HomeserverRefused as error:
        if error.status != 404:
            raise
        return True
    kinds = [mapping(flow) for flow in flows] if isinstance(flows, list) else []
    # What MAS answers where a proxy sends the old logins there.
    return any(flow.get(key) is True for flow in kinds for key in _LEGACY_LOGIN_OF_MAS)


async def _managing(homeserver: Homeserver, server: AccountServer | None) -> Finding:
    """Whether we may do what `userProvisioner` asks: reading the list takes the same right as writing."""
    name = "managing accounts"
    if server is None:
        return _no_admin_api(name)
    try:
        await server.permitted()
    except HomeserverError as error:
        return _failed(name, error)
    if homeserver.auth == "mas":
        return Finding(name, Verdict.OK, "permitted by the Matrix Authentication Service")
    return Finding(name, Verdict.OK, f"permitted as {homeserver.admin or homeserver.bot}")


def _no_admin_api(name: str) -> Finding:
    return Finding(
        name,
        Verdict.FAIL,
        "homeserver.auth is mas, but nothing says where its admin API is",
        "set homeserver.mas.url, client_id and client_secret",
    )


async def _making(homeserver: Homeserver, server: AccountServer | None, acting: Finding) -> Finding:
    """By which way accounts are made, and whether we may go it. MAS has one right for all; the appservice
    makes accounts where it may act as their users, as `acting` says."""
    name = "making accounts"
    if server is None:
        return _no_admin_api(name)
    if homeserver.auth == "mas":
        try:
            await server.permitted()
        except HomeserverError as error:
            return _failed(name, error)
        return Finding(name, Verdict.OK, "done by the Matrix Authentication Service, which permits it")
    if acting.verdict is Verdict.OK:
        token = "actor_token" if homeserver.actor_token else "as_token"
        return Finding(name, Verdict.OK, f"done by the appservice, with the {token}")
    text = "the appservice may not make accounts, as it may not act as their users"
    return Finding(name, Verdict.FAIL, text, acting.remedy)


async def _acting(homeserver: Homeserver, transport: ReadTransport, way: AccountsWay) -> Finding:
    try:
        await transport.get(Path.v3.account.whoami, user_id=mxid.make(_NOBODY, homeserver.server_name))
    except HomeserverRefused as error:
        if error.status == 403 and error.errcode != "M_EXCLUSIVE":
            return _may_act(homeserver)
        needed = way is AccountsWay.ASK
        return Finding(
            "acting as users",
            Verdict.FAIL if needed else Verdict.WARN,
            "the homeserver does not let us act as its users"
            + (", and there is no other way to know who has an account" if needed else ""),
            error.remedy,
        )
    except HomeserverError as error:
        return _failed("acting as users", error)
    return _may_act(homeserver)


def _may_act(homeserver: Homeserver) -> Finding:
    token = "actor_token" if homeserver.actor_token else "as_token"
    return Finding("acting as users", Verdict.OK, f"permitted with the {token}")


async def _accounts(
    homeserver: Homeserver, transport: ReadTransport, server: AccountServer | None
) -> tuple[AccountsWay, Finding]:
    """How accounts are found, as far as that can be told."""
    try:
        way = await accounts(homeserver, transport, server=server).way()
    except HomeserverError as error:
        if homeserver.auth == "synapse":
            raise
        # The homeserver itself may be well.
        return AccountsWay.ASK, _failed("accounts", error)
    return way, _found_by(homeserver, way)


def _found_by(homeserver: Homeserver, way: AccountsWay) -> Finding:
    if way is AccountsWay.LIST:
        return Finding("accounts", Verdict.OK, f"read from {way}, as {homeserver.admin or homeserver.bot}")
    if way is AccountsWay.MAS:
        return Finding("accounts", Verdict.OK, f"read from {way}")
    if homeserver.auth == "mas":
        return Finding("accounts", Verdict.OK, f"found by {way}")
    return Finding(
        "accounts",
        Verdict.WARN,
        f"found by {way}, as we are no server admin: one request per person, and blind to deactivation",
        "set homeserver.admin_user to a server admin, or make the bot one",
    )


async def _registration(transport: ReadTransport) -> Finding:
    """`GET /register/available`: 403 where registration is closed; no such endpoint with MAS."""
    name = "registration"
    try:
        await transport.get(Path.v3.register.available, {"username": _NOBODY})
    except HomeserverRefused as error:
        if error.status == 403:
            return Finding(name, Verdict.OK, "closed: nobody can take a name that the directory gives")
        if error.status == 404:
            return Finding(name, Verdict.OK, "not done by the homeserver")
        if error.errcode != "M_USER_IN_USE":
            return _failed(name, error)
    except HomeserverError as error:
        return _failed(name, error)
    return Finding(
        name,
        Verdict.WARN,
        "open: who registers a name of the directory first gets its invites and power levels",
        "set `enable_registration: false` on the homeserver, or let people log in by single sign-on only",
    )


async def _room_versions(transport: ReadTransport, wanted: Collection[str]) -> Finding:
    name, versions = "room version", RoomVersions(transport)
    try:
        default, available = await versions.default(), await versions.available()
    except HomeserverError as error:
        return _failed(name, error)
    missing = sorted(set(wanted) - available)
    if missing:
        return Finding(
            name,
            Verdict.FAIL,
            f"the homeserver can't make rooms of version {', '.join(missing)}",
            "choose a room_version that the homeserver supports",
        )
    if default.isdecimal() and int(default) < _FIRST_VERSION_WITH_RESTRICTED_ROOMS:
        return Finding(
            name,
            Verdict.WARN,
            f"new rooms get version {default}, in which a room can't be open to the members of its space",
            "set `default_room_version` on the homeserver to 10 or later",
        )
    return Finding(name, Verdict.OK, f"new rooms get version {one_line(default) or 'unknown'}")


def _failed(name: str, error: AimError) -> Finding:
    return Finding(name, Verdict.FAIL, error.message, error.remedy)
