"""Contents of the state events that tie rooms together (Client-Server API, Spaces; join rules)."""

from __future__ import annotations

from collections.abc import Mapping

from aim.provisioner.rooms import Rooms


def child_content(server_name: str, *, suggested: bool) -> Mapping[str, object]:
    """Content of m.space.child: how to get into the child."""
    content: dict[str, object] = {"via": [server_name]}
    if suggested:
        content["suggested"] = True
    return content


def parent_content(server_name: str) -> Mapping[str, object]:
    """Content of m.space.parent: the space is the room's main one."""
    return {"via": [server_name], "canonical": True}


async def with_room_ids(content: Mapping[str, object], rooms: Rooms) -> Mapping[str, object]:
    """The content with space keys in an `allow` rule replaced by room ids; without those that don't exist."""
    allow = content.get("allow")
    if not isinstance(allow, list):
        return content
    resolved = []
    for rule in allow:
        room_id = await rooms.id_of(rule["space"])
        if room_id is not None:
            resolved.append({"type": rule["type"], "room_id": room_id})
    return {**content, "allow": resolved}
