"""Changes rooms, acting as the bot or as a local user. Implements ports.HomeserverWriter.

In: what the executor asks for, room ids real by now. Out: as few requests as that needs. Whether it should be
done was decided before; here is only how the homeserver wants it said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping

from mautrix.api import Path, PathBuilder

from aim.desired.levels import ADMIN, has_privileged_creators
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix import parse
from aim.matrix.mxid import split
from aim.matrix.parse import Home, mapping
from aim.matrix.rooms import RoomVersions, joined
from aim.matrix.transport import Transport
from aim.ports import NewRoom
from aim.world.rooms import MARKER_TYPE, MARKER_VERSION

MAX_CONTENT = 60_000
"""Bytes. An event may have 64 KiB with hashes, signatures and references (Client-Server API, Size limits)."""

AGENT_PATIENCE = 20.0
"""Seconds for an invite over federation: where nothing is wrong it takes less than one."""
_AWAY = (
    "it is tried again by itself; that server is away, or takes no more invites of one user for now "
    "(Synapse: rc_invites.per_user there)"
)

_POWER_LEVELS = "m.room.power_levels"
_GUEST_ACCESS = "m.room.guest_access"


class Writer:
    """Changes the homeserver. All methods raise HomeserverRefused or HomeserverUnavailable."""

    def __init__(self, transport: Transport, home: Home) -> None:
        self._transport = transport
        self._home = home
        self._versions = RoomVersions(transport)
        self._is_registered = False
        """The bot's account was seen, or made."""

    async def ensure_bot(self) -> None:
        """Registers the bot's user if it is missing; writes nothing if not.

        Application Service API, Server admin style permissions: `POST /register`, without a login.
        """
        if self._is_registered:
            return
        try:
            await self._transport.get(Path.v3.profile[self._home.bot])
        except HomeserverRefused as error:
            # 403: profiles are shown only to those who share a room.
            if error.status not in {403, 404}:
                raise
        else:
            self._is_registered = True
            return
        parts = split(self._home.bot)
        body = {
            "type": "m.login.application_service",
            "username": parts[0] if parts else self._home.bot,
            "inhibit_login": True,
        }
        try:
            await self._transport.post(Path.v3.register, body)
        except HomeserverRefused as error:
            if error.errcode != "M_USER_IN_USE":
                raise
        self._is_registered = True

    async def create_room(self, room: NewRoom) -> str:
        """The id of a new room (`POST /createRoom`), everything in one request.

        HomeserverUnavailable with `maybe_done` if the answer was lost. After a refusal too a room may be left
        that carries the marker: the homeserver makes the room first and looks at the rest then.
        """
        version = room.room_version or await self._versions.default()
        body = creation(room, version, self._home)
        answer = mapping(await self._transport.post(Path.v3.createRoom, body, once=True))
        room_id = answer.get("room_id")
        if not isinstance(room_id, str):
            raise HomeserverRefused("the homeserver made a room without telling its id", status=200)
        return room_id

    async def find_by_marker(self, key: str, ignoring: Collection[str]) -> str | None:
        """The id of a room of ours with that key and not among `ignoring`, or None; the oldest if several."""
        found: list[tuple[int, str]] = []
        for room_id in await joined(self._transport):
            if room_id in ignoring:
                continue
            event = await self._create_event(room_id)
            ours = parse.marker(event, self._home)
            if ours is not None and ours.key == key and ours.version <= MARKER_VERSION:
                created = event.get("origin_server_ts")
                found.append((created if isinstance(created, int) else 0, room_id))
        return min(found)[1] if found else None

    async def _create_event(self, room_id: str) -> parse.Content:
        path = _state_path(room_id, "m.room.create", "")
        event = mapping(await self._transport.get(path, {"format": "event"}))
        if "sender" in event:
            return event
        # A homeserver that knows only how to give the content.
        return parse.create_event(await self._transport.get(Path.v3.rooms[room_id].state))

    async def invite(
        self, room_id: str, mxid: str, reason: str | None = None, acting_as: str | None = None
    ) -> None:
        """`POST /rooms/{id}/invite`, as the bot, or acting as this member of a room that the bot is not in.
        Done too if they are already in or invited."""
        body = {"user_id": mxid} if reason is None else {"user_id": mxid, "reason": reason}
        await self._invite(room_id, mxid, body, acting_as)

    async def invite_agent(self, room_id: str, mxid: str) -> None:
        """The same for the bot of another server. Its server has to sign the invite, and one that hangs keeps
        the homeserver from answering for minutes: it is tried once, for AGENT_PATIENCE seconds."""
        try:
            async with asyncio.timeout(AGENT_PATIENCE):
                await self._invite(room_id, mxid, {"user_id": mxid}, None, once=True)
        except TimeoutError as error:
            raise HomeserverUnavailable(f"no answer from the server of {mxid}", _AWAY) from error
        except HomeserverUnavailable as error:
            raise HomeserverUnavailable(f"{mxid} can't be asked in: {error.message}", _AWAY) from error

    async def _invite(
        self,
        room_id: str,
        mxid: str,
        body: Mapping[str, object],
        acting_as: str | None,
        *,
        once: bool = False,
    ) -> None:
        try:
            await self._transport.post(Path.v3.rooms[room_id].invite, body, user_id=acting_as, once=once)
        except HomeserverRefused as error:
            membership = await self._membership_after(error, room_id, mxid, acting_as)
            if membership in {"join", "invite"}:
                return
            if membership == "ban":
                raise HomeserverRefused(
                    f"{mxid} is banned from {room_id}",
                    "lift the ban there, or take them out of the groups of that space",
                    status=error.status,
                    errcode=error.errcode,
                ) from error
            raise

    async def kick(self, room_id: str, mxid: str, reason: str) -> None:
        """`POST /rooms/{id}/kick`: ends a membership, invite or knock. Done too if they are already out."""
        body = {"user_id": mxid, "reason": reason}
        try:
            await self._transport.post(Path.v3.rooms[room_id].kick, body)
        except HomeserverRefused as error:
            membership = await self._membership_after(error, room_id, mxid)
            if membership not in {"join", "invite", "knock"}:
                return
            if error.status != 403:
                raise
            raise HomeserverRefused(
                f"{mxid} can't be removed from {room_id}: {error.message}",
                "they have the bot's own power level or made the room: only they themselves can leave",
                status=error.status,
                errcode=error.errcode,
            ) from error

    async def join(self, room_id: str, mxid: str) -> None:
        """`POST /rooms/{id}/join`, acting as this user. Done too if they are already in."""
        await self._transport.post(Path.v3.rooms[room_id].join, {}, user_id=mxid)

    async def leave(self, room_id: str, mxid: str | None = None, reason: str | None = None) -> None:
        """`POST /rooms/{id}/leave`, acting as this user, or as the bot: also declines an invite, or takes a
        knock back. Done too if they are already out."""
        body = {} if reason is None else {"reason": reason}
        try:
            await self._transport.post(Path.v3.rooms[room_id].leave, body, user_id=mxid)
        except HomeserverRefused as error:
            if error.status not in {403, 404} or await self._is_inside(room_id, mxid):
                raise

    async def _is_inside(self, room_id: str, mxid: str | None) -> bool:
        """Whether they are in a room: asked as they themselves, as we may not be in it."""
        rooms = mapping(await self._transport.get(Path.v3.joined_rooms, user_id=mxid))
        return room_id in parse.strings(rooms.get("joined_rooms"))

    async def lower_own_level(self, room_id: str, mxid: str, level: int) -> None:
        """Reads the power levels and changes only this user's own, acting as them, if they have more."""
        path = _state_path(room_id, _POWER_LEVELS, "")
        current = dict(mapping(await self._transport.get(path)))
        content = merged_power_levels(current, None, {mxid: level})
        if content != current:
            await self._transport.put(path, content, user_id=mxid)

    async def accept(self, room_id: str, inviter: str) -> None:
        """`POST /join/{id}` by way of the inviter's server. What came with the invite is only what that one
        said of the room: the create event itself is read before anything rests on it, and the bot leaves
        again if that is another's. Done too if it is already in."""
        parts = split(inviter)
        query = {"server_name": parts[1]} if parts else {}
        await self._transport.post(Path.v3.join[room_id], {}, query=query)
        found = parse.origin(await self._create_event(room_id), self._home)
        if found is None or found.agent != inviter:
            await self.leave(room_id)
            raise HomeserverRefused(
                f"{room_id} is not what {inviter} asked us into: it is not made by them", status=403
            )

    async def take_control(self, room_id: str, acting_as: str | None, *, invites: bool) -> None:
        """Acting as this user lets the bot in (with `invites`) and gives it level 100; each step only if it
        is not so already. With None the bot joins by itself.

        Needs the user's right to invite and to change power levels; no server admin is needed.
        """
        if acting_as is None:
            await self._transport.post(Path.v3.rooms[room_id].join, {})
            return
        if invites:
            await self._let_in(room_id, acting_as)
        path = _state_path(room_id, _POWER_LEVELS, "")
        try:
            current = dict(mapping(await self._transport.get(path, user_id=acting_as)))
        except HomeserverRefused as error:
            if error.status != 404:
                raise
            current = {"users": await self._first_levels(room_id, acting_as)}
        have = parse.level(mapping(current.get("users")).get(self._home.bot))
        if have is None:
            have = parse.level(current.get("users_default")) or 0
        if have < ADMIN and not await self._stands_above(room_id):
            content = merged_power_levels(current, None, {self._home.bot: ADMIN})
            _fits(_POWER_LEVELS, content)
            await self._transport.put(path, content, user_id=acting_as)

    async def _stands_above(self, room_id: str) -> bool:
        """Whether the bot made the room, and its version puts creators above every level."""
        path = _state_path(room_id, "m.room.create", "")
        event = mapping(await self._transport.get(path, {"format": "event"}))
        version = str(mapping(event.get("content")).get("room_version", "1"))
        return event.get("sender") == self._home.bot and has_privileged_creators(version)

    async def _let_in(self, room_id: str, acting_as: str) -> None:
        bot = self._home.bot
        try:
            await self._transport.post(Path.v3.rooms[room_id].invite, {"user_id": bot}, user_id=acting_as)
        except HomeserverRefused as error:
            # 403 as well if the bot is in, or invited, already: then joining tells.
            if error.status != 403:
                raise
            try:
                await self._transport.post(Path.v3.rooms[room_id].join, {})
            except HomeserverRefused:
                raise error from None
            return
        await self._transport.post(Path.v3.rooms[room_id].join, {})

    async def put_state(
        self,
        room_id: str,
        event_type: str,
        state_key: str,
        content: Mapping[str, object],
        acting_as: str | None = None,
    ) -> None:
        """`PUT /rooms/{id}/state/{type}/{key}`, as the bot, or acting as this member."""
        _fits(event_type, content)
        await self._transport.put(_state_path(room_id, event_type, state_key), content, user_id=acting_as)

    async def change_power_levels(
        self, room_id: str, base: Mapping[str, object] | None, levels: Mapping[str, int]
    ) -> None:
        """Reads the power levels, changes only these people's (by MXID; the default level removes the entry)
        and, if given, the keys of `base`, and writes them if that made a difference."""
        path = _state_path(room_id, _POWER_LEVELS, "")
        try:
            current = dict(mapping(await self._transport.get(path)))
        except HomeserverRefused as error:
            if (error.status, error.errcode) != (404, "M_NOT_FOUND"):
                # Anybody's 404, a proxy's say: what is there must not be overwritten.
                raise
            # A room whose creation broke off.
            current = {"users": await self._first_levels(room_id, self._home.bot)}
        content = merged_power_levels(current, base, levels)
        if content != current:
            _fits(_POWER_LEVELS, content)
            await self._transport.put(path, content)

    async def _first_levels(self, room_id: str, creator: str) -> dict[str, object]:
        """Whom the first power levels of a room must name: they end the creator's implicit power."""
        create = mapping(await self._transport.get(_state_path(room_id, "m.room.create", "")))
        version = create.get("room_version", "1")
        return {} if has_privileged_creators(str(version)) else {creator: ADMIN}

    async def _membership_after(
        self, error: HomeserverRefused, room_id: str, mxid: str, acting_as: str | None = None
    ) -> str | None:
        """Somebody's membership after a refusal that it may explain, as the bot or this member sees it;
        raises `error` if that can't be told."""
        if error.status not in {403, 404}:
            raise error
        try:
            path = _state_path(room_id, "m.room.member", mxid)
            content = await self._transport.get(path, user_id=acting_as)
        except HomeserverRefused as unknown:
            if unknown.status == 404:
                return None
            raise error from unknown
        return str(mapping(content).get("membership"))


def creation(room: NewRoom, version: str, home: Home) -> dict[str, object]:
    """The body of `POST /createRoom`. `version` is what the room will have, '' if nobody knows.

    Raises HomeserverRefused if an event of it would be too large: the homeserver would notice only when the
    room is half made.
    """
    content: dict[str, object] = {
        MARKER_TYPE: {"version": MARKER_VERSION, "instance": home.instance, "key": room.key}
    }
    if room.is_space:
        content["type"] = "m.space"
    if room.predecessor is not None:
        # Without an event: from room version 12 on there is none to be named (MSC4291 leaves it out).
        content["predecessor"] = {"room_id": room.predecessor}
    levels = dict(room.power_levels)
    users = dict(mapping(levels.get("users")))
    if has_privileged_creators(version):
        users.pop(home.bot, None)
    else:
        users[home.bot] = ADMIN
    levels["users"] = users
    # As state and not as `power_level_content_override`: that one is laid over the homeserver's own defaults,
    # of which some would remain (`historical`, and whatever its configuration adds).
    state: list[Mapping[str, object]] = [
        {"type": _POWER_LEVELS, "state_key": "", "content": levels},
        *room.state,
    ]
    if all(event.get("type") != _GUEST_ACCESS for event in state):
        # The preset would let guests in.
        state.append({"type": _GUEST_ACCESS, "state_key": "", "content": {"guest_access": "forbidden"}})
    for event in state:
        _fits(str(event.get("type")), mapping(event.get("content")))
    body: dict[str, object] = {
        "visibility": "private",
        "preset": _preset(state),
        "creation_content": content,
        "initial_state": state,
        "invite": list(room.invite),
    }
    if version:
        body["room_version"] = version
    if room.name:
        body["name"] = room.name
    return body


def merged_power_levels(
    current: Mapping[str, object], base: Mapping[str, object] | None, levels: Mapping[str, int]
) -> dict[str, object]:
    """`current` with the keys of `base` (but `users`) and these people's levels; the rest as it was, also
    within `events` and `notifications`."""
    content = dict(current)
    for key, value in (base or {}).items():
        present = content.get(key)
        if isinstance(value, Mapping) and isinstance(present, Mapping):
            content[key] = {**present, **value}
        elif key != "users":
            content[key] = value
    users = dict(mapping(current.get("users")))
    default = parse.level(content.get("users_default")) or 0
    for user, wanted in levels.items():
        if wanted == default:
            users.pop(user, None)
        elif parse.level(users.get(user)) != wanted:
            users[user] = wanted
    if users or "users" in current:
        content["users"] = users
    return content


def _preset(state: Collection[Mapping[str, object]]) -> str:
    """All that a preset sets is given by us, but for one thing: a homeserver can be configured to encrypt all
    private rooms by their preset, which could not be undone in a public one."""
    for event in state:
        if event.get("type") == "m.room.join_rules":
            is_public = mapping(event.get("content")).get("join_rule") == "public"
            return "public_chat" if is_public else "private_chat"
    return "private_chat"


def _state_path(room_id: str, event_type: str, state_key: str) -> PathBuilder:
    path = Path.v3.rooms[room_id].state[event_type]
    return path[state_key] if state_key else path


def _fits(event_type: str, content: Mapping[str, object]) -> None:
    size = len(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
    if size > MAX_CONTENT:
        raise HomeserverRefused(
            f"{event_type} would have {size} bytes, more than the {MAX_CONTENT} that fit into one event",
            "give fewer people a power level of their own"
            if event_type == _POWER_LEVELS
            else "shorten what is configured for that room",
            status=413,
            errcode="M_TOO_LARGE",
        )
