"""Contents of our marker and of events that tie rooms together (Client-Server API, Spaces; join rules)."""

from __future__ import annotations

from collections.abc import Mapping

from aim.planner.actions import TakeControl
from aim.provisioner.rooms import Rooms
from aim.world.rooms import MARKER_VERSION


def child_content(server_name: str, *, suggested: bool) -> Mapping[str, object]:
    """Content of m.space.child: how to get into the child."""
    content: dict[str, object] = {"via": [server_name]}
    if suggested:
        content["suggested"] = True
    return content


def parent_content(server_name: str) -> Mapping[str, object]:
    """Content of m.space.parent: the space is the room's main one."""
    return {"via": [server_name], "canonical": True}


def marker_content(instance: str, taken: TakeControl) -> Mapping[str, object]:
    """Content of our marker in a room that people made: what it takes to give the room back, too."""
    return {
        "version": MARKER_VERSION,
        "instance": instance,
        "key": taken.room,
        "creator": taken.creator,
        "creator_level": taken.creator_level,
    }


async def with_room_ids(content: Mapping[str, object], rooms: Rooms) -> Mapping[str, object]:
    """The content with space keys in an `allow` rule replaced by room ids; without those that don't exist."""
    if isinstance(replacement := content.get("replacement_room"), str):
        return {**content, "replacement_room": await rooms.id_of(replacement)}
    allow = content.get("allow")
    if not isinstance(allow, list):
        return content
    resolved = []
    for rule in allow:
        if "space" not in rule:
            resolved.append(rule)
        elif (room_id := await rooms.id_of(rule["space"])) is not None:
            resolved.append({"type": rule["type"], "room_id": room_id})
    return {**content, "allow": resolved}
