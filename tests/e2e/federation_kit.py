"""What the journeys of federation share: Dallas and Berlin, each with a homeserver, a directory, a database
and an `aim` of its own, as in the example of the specification.

They share nothing but the MXIDs of their bots. What is expected is worked out here, from the two directories,
by rules of its own; what is looked at is the space as both homeservers have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e.kit import Command, Room, Stage, until
from tests.e2e.organisation import SUFFIX, Organisation

Json = dict[str, Any]

KEY = "shared"
CEILING = 50
"""`max_power_level` where nothing else is configured."""
AGENT = CEILING + 1
EXPECTATIONS = "aim.expectations"
MOMENT = 20.0
"""Seconds for a change to come through. Directories are read each second; the rest is for a busy machine."""


def organisation(city: str, *uids: str) -> Organisation:
    """People of a city, the first of whom manages it."""
    made = Organisation(groups={f"{city}-management": ()})
    for uid in uids:
        made = made.joined(uid)
    return made.promoted(uids[0], f"{city}-management")


def management(city: str) -> str:
    """The id of the group of those who manage a city."""
    return f"cn={city}-management,{SUFFIX}"


def groups(city: str) -> list[Json]:
    """Everybody of a city, and its managers with 50: in the specification's spelling."""
    return [{"externalId": ""}, {"externalId": management(city), "powerLevel": 50}]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two cities."""

    city: str
    stage: Stage

    @property
    def bot(self) -> str:
        return self.stage.homeserver.bot

    @property
    def server_name(self) -> str:
        return self.stage.homeserver.server_name

    @property
    def people(self) -> set[str]:
        """MXIDs of all in the directory."""
        return self.stage.mxids(*self.stage.organisation.people)

    @property
    def managers(self) -> set[str]:
        return self.stage.mxids(*self.stage.organisation.groups[f"{self.city}-management"])

    def owns(self, mxid: str) -> bool:
        """Whether somebody has their account here. The server's name has a port: the first colon counts."""
        return mxid.partition(":")[2] == self.server_name

    def give(self, organisation: Organisation) -> None:
        self.stage.give(organisation)

    def federate(self, *bots: str, **options: object) -> None:
        """Whom it federates with; `options` are more of `provisioner.federation`."""
        whom = {"federates_with": list(bots)}
        provisioner = {"federation": whom | options} if options else whom
        self.stage.configure(provisioner=provisioner)

    def writes(self) -> list[str]:
        """What its `aim` has written to its homeserver, the counter of its control room aside."""
        requests = (str(request) for request in self.stage.proxy.writes)
        return [request for request in requests if "/state/aim.control" not in request]


class Cities:
    """Dallas, which makes the space, and Berlin, which is invited."""

    def __init__(self, dallas: Stage, berlin: Stage) -> None:
        self.dallas = Side("dallas", dallas)
        self.berlin = Side("berlin", berlin)
        self.dallas.give(organisation("dallas", "alice", "bob", "cyril"))
        self.berlin.give(organisation("berlin", "dave", "eve", "francis"))
        dallas.configure(spaces=[self.shared()])
        berlin.configure(spaces=[{"id": "berlin", "name": "Berlin", "groups": [{"externalId": ""}]}])
        self.dallas.federate(self.berlin.bot)
        self.berlin.federate(self.dallas.bot)

    @property
    def both(self) -> tuple[Side, Side]:
        return self.dallas, self.berlin

    def shared(self, federated: Sequence[Json] | None = None) -> Json:
        """The space of the specification's example, with these groups of Berlin's; by default all its people
        and its managers.

        The specification's own text is no YAML (a key beside a list); this is the nearest that is.
        """
        theirs = groups("berlin") if federated is None else list(federated)
        space: Json = {"id": KEY, "name": "Federated space", "groups": groups("dallas")}
        if theirs:
            space["federatedGroups"] = [{"agent": self.berlin.bot}, *theirs]
        return space

    async def register_everybody(self) -> None:
        await asyncio.gather(*(side.stage.register_everybody() for side in self.both))

    @asynccontextmanager
    async def running(self, *sides: Side) -> AsyncIterator[list[Command]]:
        """The daemons of these, by default both; they are asked to stop at the end, and must do so well."""
        async with AsyncExitStack() as stack:
            commands = [await stack.enter_async_context(side.stage.daemon()) for side in sides or self.both]
            try:
                for command in commands:
                    # Before that it can't be stopped in good order.
                    await command.says("started")
                yield commands
            except BaseException as error:
                for side, command in zip(sides or self.both, commands, strict=True):
                    error.add_note(f"{side.city} said:\n{command.err}")
                raise
            for command in commands:
                ended = await command.terminate()
                assert (ended.code, ended.out) == (0, ""), ended

    # -- what the homeservers have -----------------------------------------------------------------------

    async def room_id(self, key: str = KEY) -> str:
        return (await self.dallas.stage.rooms())[key].room_id

    async def look(self, side: Side, key: str = KEY) -> Room:
        """A room that Dallas made, as that side's homeserver has it."""
        return await side.stage.look(await self.room_id(key))

    async def settles(self, key: str = KEY, patience: float = MOMENT) -> None:
        """Waits until everybody is in, or invited, on both servers, and has the right level."""
        problem = "nothing was looked at"

        async def done() -> bool:
            nonlocal problem
            try:
                await self.assert_shared(key)
            except (AssertionError, KeyError) as error:
                problem = str(error)
                return False
            return True

        try:
            await until(done, "both sides are as both directories say", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}: {problem}") from None

    async def assert_shared(self, key: str = KEY) -> None:
        """All people of both directories and both bots are there, as either server sees it; the managers have
        50, Berlin's bot 51; and nobody was touched by the other side."""
        room_id = await self.room_id(key)
        for side in self.both:
            room = await side.stage.look(room_id)
            everybody = self.dallas.people | self.berlin.people | {self.dallas.bot, self.berlin.bot}
            assert room.members() == everybody, (side.city, room.members() ^ everybody)
            levels = {mxid: level for mxid, level in room.levels["users"].items() if level}
            levels.pop(self.dallas.bot, None)
            wanted = dict.fromkeys(self.dallas.managers | self.berlin.managers, CEILING)
            assert levels == {**wanted, self.berlin.bot: AGENT}, (side.city, levels)
        await self.assert_untouched(room_id)

    async def assert_untouched(self, room_id: str) -> None:
        """Who is in or out was decided by people's own side; Berlin's bot alone is Dallas's guest."""
        for side in self.both:
            for event in await side.stage.homeserver.state(room_id):
                if event["type"] != "m.room.member" or event["state_key"] == self.berlin.bot:
                    continue
                sender, subject = event["sender"], event["state_key"]
                assert self.dallas.owns(sender) == self.dallas.owns(subject), event

    async def gone(self, side: Side, mxids: Iterable[str], key: str = KEY) -> bool:
        """Whether none of them is in, as that side's homeserver sees it."""
        return (await self.look(side, key)).members().isdisjoint(mxids)

    async def member(self, side: Side, mxid: str, key: str = KEY) -> str | None:
        """Somebody's membership, as that side's homeserver sees it."""
        content = (await self.look(side, key)).content("m.room.member", mxid) or {}
        return content.get("membership")

    async def join(self, *sides: Side) -> None:
        """All people of these, by default both, accept the invite to the space."""
        room_id = await self.room_id()
        for side in sides or self.both:
            for mxid in sorted(side.people & (await side.stage.look(room_id)).members("invite")):
                await side.stage.homeserver.client(mxid[1:].partition(":")[0]).join(room_id)

    async def expectations(self) -> Json | None:
        """What Dallas says that it expects, as Berlin sees it."""
        return (await self.look(self.berlin)).content(EXPECTATIONS, self.dallas.bot)
