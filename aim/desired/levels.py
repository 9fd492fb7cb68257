"""Complete power levels for the rooms we make (Client-Server API, m.room.power_levels).

They are always written whole: a part of the `events` map would replace Synapse's own protections, and
then level 50 could rewrite the power levels.
"""

from __future__ import annotations

from collections.abc import Mapping

MODERATOR = 50
ADMIN = 100
CREATOR_ONLY = 150
"""What the tombstone needs from room version 12 on, where creators stand above every level."""

_VERSIONS_BEFORE_CREATORS = frozenset(str(number) for number in range(1, 12))


def has_privileged_creators(room_version: str) -> bool:
    """True from room version 12 on: the creator outranks all and must not be among `users`.

    A version that is not a plain number up to 11 is taken for a newer one; an unknown ("") for an older one.
    """
    return bool(room_version) and room_version not in _VERSIONS_BEFORE_CREATORS


def base_levels(*, is_space: bool, room_version: str, agent_level: int | None = None) -> Mapping[str, object]:
    """All keys of the power levels but `users`.

    Moderators (50) name, decorate, invite, kick and, in a space, add children; what guards the whole
    (levels, join rules, history, encryption, server ACL) takes 100. In a space nobody talks. Where bots of
    other servers look after their people, their `agent_level` lets them invite, remove and give levels.
    """
    for_agents = ADMIN if agent_level is None else agent_level
    events: dict[str, int] = {
        "m.room.avatar": MODERATOR,
        "m.room.canonical_alias": MODERATOR,
        "m.room.encryption": ADMIN,
        "m.room.history_visibility": ADMIN,
        "m.room.join_rules": ADMIN,
        "m.room.name": MODERATOR,
        "m.room.power_levels": for_agents,
        "m.room.server_acl": ADMIN,
        "m.room.tombstone": CREATOR_ONLY if has_privileged_creators(room_version) else ADMIN,
        "m.room.topic": MODERATOR,
        "m.space.child": MODERATOR,
    }
    if not is_space:
        # Members take part in calls by a state event of their own; a moderator can't allow that later.
        events["m.call.member"] = 0
        events["org.matrix.msc3401.call.member"] = 0
    return {
        "ban": MODERATOR,
        "events": events,
        "events_default": ADMIN if is_space else 0,
        "invite": min(MODERATOR, for_agents),
        "kick": min(MODERATOR, for_agents),
        "notifications": {"room": MODERATOR},
        # Where what we expect of them stands, they must not be able to empty it.
        "redact": MODERATOR if agent_level is None or not is_space else max(MODERATOR, agent_level + 1),
        "state_default": MODERATOR,
        "users_default": 0,
    }
