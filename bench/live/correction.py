"""From a person's change in Matrix to its correction, beside what cannot be left out.

    change accepted ─► delivered ─► aim decides ─► correction accepted
    change accepted ─► delivered                                          } the same change in a room that
                       the requests that the correction needs, alone      } nobody looks after

Both take turns on one Synapse, each time with another room or person, and each begins when there is nothing
else to do. Times are seconds from the moment at which the person's own request was answered.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from urllib.parse import quote

from bench.live.clocks import Delivery, Event, is_poll
from bench.live.organisation import Organisation, localpart
from bench.live.stage import PATIENCE, Stage
from tests.servers.proxy import Request
from tests.servers.synapse import Homeserver

MOST_TIMES_NEEDED = 2.0
MOMENT = 60.0
"""Seconds after which a correction is given up on."""
CALM = 0.3
"""Seconds without a request after which there is nothing to do any more."""
NEVER_SAID = "Nobody said so"


@dataclass(frozen=True, slots=True)
class Corrected:
    """One change, corrected by aim."""

    delivered: float
    first_request: float
    accepted: float


@dataclass(frozen=True, slots=True)
class Needed:
    """What one correction takes whoever makes it."""

    delivered: float
    requests: float
    """Seconds of the requests, one after the other."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """All turns of one kind."""

    name: str
    needs: str
    """The requests, in words."""
    corrected: Sequence[Corrected]
    needed: Sequence[Needed]

    @property
    def median(self) -> float:
        return median(one.accepted for one in self.corrected)

    @property
    def median_needed(self) -> float:
        """What it is measured by."""
        return median(one.delivered for one in self.needed) + median(one.requests for one in self.needed)

    @property
    def times_needed(self) -> float:
        return self.median / self.median_needed


# -- what people do, and what undoes it ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """A room, who leads it, and somebody: a member of it, or not, as the kind wants it."""

    homeserver: Homeserver
    room_id: str
    lead: str
    """Localpart."""
    person: str
    """MXID."""
    name: str

    async def put(self, event_type: str, content: Mapping[str, object]) -> None:
        await self._room("PUT", f"state/{event_type}", content)

    async def kick(self) -> None:
        await self._room("POST", "kick", {"user_id": self.person, "reason": NEVER_SAID})

    async def levels(self) -> Mapping[str, object]:
        return await self._room("GET", "state/m.room.power_levels")

    async def _room(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Mapping[str, object]:
        """As the bot."""
        room = f"/_matrix/client/v3/rooms/{quote(self.room_id, safe='')}"
        token = self.homeserver.as_token
        return await self.homeserver.request(method, f"{room}/{path}", body, token=token)


@dataclass(frozen=True, slots=True)
class Kind:
    """A change, and how it is undone."""

    name: str
    needs: str
    change: Callable[[Scene], Awaitable[None]]
    is_change: Callable[[Scene, Event], bool]
    undo: Callable[[Scene], Awaitable[None]]
    """Sends the requests that a correction needs, and no others."""
    path: str
    """How the path of the last of them ends."""


async def _invite(scene: Scene) -> None:
    await scene.homeserver.client(scene.lead).invite(scene.room_id, scene.person)


async def _rename(scene: Scene) -> None:
    await scene.homeserver.client(scene.lead).put_state(scene.room_id, "m.room.name", {"name": "Pirates"})


async def _rename_back(scene: Scene) -> None:
    await scene.put("m.room.name", {"name": scene.name})


async def _raise(scene: Scene) -> None:
    await scene.put("m.room.power_levels", _with(await scene.levels(), scene.person, 50))


async def _lower(scene: Scene) -> None:
    await scene.put("m.room.power_levels", _with(await scene.levels(), scene.person, None))


def _with(levels: Mapping[str, object], person: str, level: int | None) -> Mapping[str, object]:
    users = levels.get("users", {})
    assert isinstance(users, dict)
    changed = {name: value for name, value in users.items() if name != person}
    return {**levels, "users": changed if level is None else {**changed, person: level}}


KINDS = (
    Kind(
        "somebody is invited who has no right to be there",
        "kick",
        _invite,
        lambda scene, event: event.get("state_key") == scene.person,
        Scene.kick,
        "/kick",
    ),
    Kind(
        "a space is renamed",
        "PUT m.room.name",
        _rename,
        lambda _, event: event.get("type") == "m.room.name",
        _rename_back,
        "/state/m.room.name",
    ),
    Kind(
        "somebody is given a power level",
        "GET and PUT m.room.power_levels",
        _raise,
        lambda scene, event: (
            event.get("type") == "m.room.power_levels" and scene.person in event["content"].get("users", {})
        ),
        _lower,
        "/state/m.room.power_levels",
    ),
)


# -- who measures --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spaces:
    """The teams of an organisation, as one of two bots made them."""

    organisation: Organisation
    homeserver: Homeserver
    ids: Mapping[str, str]
    """Name → room id."""

    def scene(self, turn: int, *, member: bool) -> Scene:
        """Another team each turn, then other people of it, or of the next team."""
        team, lap = turn % self.organisation.teams, 1 + turn // self.organisation.teams
        # The first of each team leads it.
        number = (team if member else (team + 1) % self.organisation.teams) + lap * self.organisation.teams
        name = f"Team {team}"
        person = self.homeserver.mxid(localpart(number))
        return Scene(self.homeserver, self.ids[name], localpart(team), person, name)


async def spaces_of(organisation: Organisation, homeserver: Homeserver, turns: int) -> Spaces:
    """The teams as they are on the homeserver; their leads have joined."""
    found = {str(room["name"]): str(room["room_id"]) for room in await homeserver.rooms()}
    spaces = Spaces(organisation, homeserver, found)
    for turn in range(min(turns, organisation.teams)):
        scene = spaces.scene(turn, member=True)
        await homeserver.client(scene.lead).join(scene.room_id)
    return spaces


async def measure(
    kind: Kind, stage: Stage, ours: Spaces, theirs: Spaces, delivery: Delivery, turns: int
) -> Corrections:
    """So many turns. `theirs` are rooms that nobody looks after; their events come to `delivery`."""
    corrected, needed = [], []
    for turn in range(turns):
        member = kind.undo is _lower
        corrected.append(await _corrected(kind, stage, ours.scene(turn, member=member)))
        # Else what aim does after a correction would slow the requests that it is measured by.
        await stage.clock.calm(CALM, PATIENCE)
        needed.append(await _needed(kind, delivery, theirs.scene(turn, member=member)))
    return Corrections(kind.name, kind.needs, corrected, needed)


async def _corrected(kind: Kind, stage: Stage, scene: Scene) -> Corrected:
    await stage.clock.calm(CALM, PATIENCE)
    stage.clock.forget()
    stage.delivery.forget()
    await kind.change(scene)
    changed = time.perf_counter()

    def is_correction(request: Request) -> bool:
        return request.is_write and request.path.endswith(f"/rooms/{scene.room_id}{kind.path}")

    done = await stage.clock.accepted(is_correction, MOMENT)
    delivered = await stage.delivery.delivered(_change(kind, scene), MOMENT)
    first = min(one.came for one in stage.clock.timed if one.came > delivered and not is_poll(one.request))
    return Corrected(delivered - changed, first - changed, done.answered - changed)


async def _needed(kind: Kind, delivery: Delivery, scene: Scene) -> Needed:
    delivery.forget()
    await kind.change(scene)
    changed = time.perf_counter()
    delivered = await delivery.delivered(_change(kind, scene), MOMENT)
    begun = time.perf_counter()
    await kind.undo(scene)
    return Needed(delivered - changed, time.perf_counter() - begun)


def _change(kind: Kind, scene: Scene) -> Callable[[Event], bool]:
    return lambda event: event.get("room_id") == scene.room_id and kind.is_change(scene, event)
