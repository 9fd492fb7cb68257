"""Tells the requests apart that aim sends: what makes rooms, what is the control room's, what is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.live.clocks import Timed
from tests.servers.proxy import Request

MARKER, CONTROL = "aim.managed", "aim.control"
CONTROL_ROOM = "control room"
_ROOM = re.compile(r"^/_matrix/client/v3/rooms/([^/]+)/(.+)$")


def room_of(request: Request) -> str | None:
    """The room that the path names."""
    found = _ROOM.match(request.path)
    return found[1] if found else None


def is_creation(request: Request) -> bool:
    return request.path.endswith("/createRoom")


def marker_of(request: Request) -> Mapping[str, Any]:
    """The marker of a room that is made."""
    found: Mapping[str, Any] = json.loads(request.body)["creation_content"][MARKER]
    return found


def control_room(timed: Iterable[Timed]) -> str | None:
    """The room of aim's own, into which it sends its counter."""
    return next((room_of(one.request) for one in timed if CONTROL in one.request.path), None)


def work(timed: Sequence[Timed]) -> list[Timed]:
    """What makes the rooms of the organisation, and what is in them; in the order in which it came."""
    control = control_room(timed)
    return sorted((one for one in timed if _is_work(one, control)), key=lambda one: one.came)


def _is_work(timed: Timed, control: str | None) -> bool:
    request = timed.request
    if timed.status != 200 or not request.is_write:
        return False
    if is_creation(request):
        return "control" not in marker_of(request)
    return room_of(request) not in {None, control}


def kinds(requests: Iterable[Request], control: str | None) -> Mapping[str, int]:
    """How many there are of each kind, the most first."""
    return dict(Counter(kind_of(request, control) for request in requests).most_common())


def kind_of(request: Request, control: str | None) -> str:
    """What a request is for, in few words."""
    room = room_of(request)
    if is_creation(request):
        return CONTROL_ROOM if "control" in marker_of(request) else "createRoom"
    if room is None:
        words = request.path.split("/")
        return f"{request.method} {next(word for word in words[4:] if word != 'v1')}"
    if room == control or CONTROL in request.path:
        return CONTROL_ROOM
    rest = request.path.partition(room)[2].strip("/").split("/")
    name = rest[1] if rest[0] == "state" and len(rest) > 1 else rest[0]
    return name if request.is_write else f"GET {name}"
