"""The demo's people at their Matrix clients: each acts with their own access token (Client-Server API)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from aim.errors import HomeserverRefused

_AT_ONCE = 8


class People:
    """Everyone who has an account."""

    def __init__(self, base_url: str, tokens: Mapping[str, str]) -> None:
        """`tokens`: uid → access token."""
        self._base_url = base_url
        self._tokens = tokens

    async def accept_all(self) -> int:
        """Everybody joins what they are invited to. Gives the number of invites."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def accept(uid: str) -> int:
            async with limit:
                invited = (await self._sync(uid)).get("invite", {})
                for room_id in invited:
                    await self._request(uid, "POST", f"/rooms/{quote(room_id)}/join", {})
                return len(invited)

        return sum(await asyncio.gather(*map(accept, self._tokens)))

    async def rooms_of(self, uid: str) -> Mapping[str, str]:
        """Name of the room → join or invite, as this person's client shows it."""
        sync = await self._sync(uid)
        found: dict[str, str] = {}
        for room_id in sync.get("join", {}):
            content = await self._request(uid, "GET", f"/rooms/{quote(room_id)}/state/m.room.name/")
            found[content["name"]] = "join"
        for room in sync.get("invite", {}).values():
            for event in room["invite_state"]["events"]:
                if event["type"] == "m.room.name":
                    found[event["content"]["name"]] = "invite"
        return found

    async def level_in(self, uid: str, name: str, mxid: str) -> int:
        """The power level of `mxid` in the joined room of that name."""
        for room_id in (await self._sync(uid)).get("join", {}):
            path = f"/rooms/{quote(room_id)}/state"
            if (await self._request(uid, "GET", f"{path}/m.room.name/"))["name"] == name:
                levels = await self._request(uid, "GET", f"{path}/m.room.power_levels/")
                return int(levels.get("users", {}).get(mxid, levels.get("users_default", 0)))
        return 0

    async def _sync(self, uid: str) -> dict[str, Any]:
        rooms: dict[str, Any] = (await self._request(uid, "GET", "/sync?timeout=0")).get("rooms", {})
        return rooms

    async def _request(
        self, uid: str, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._tokens[uid]}"}
        url = f"{self._base_url}/_matrix/client/v3{path}"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, url, json=body) as response,
        ):
            answer: dict[str, Any] = await response.json()
        if response.status >= 400:
            raise HomeserverRefused(f"{uid}: {method} {path}: {answer.get('error')}", status=response.status)
        return answer
