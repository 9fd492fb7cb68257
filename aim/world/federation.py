"""What servers with an `aim` each tell each other, in the space that one of them made. Pure.

In: what `matrix.parse` found in the state of a room. Out: plain frozen data for `desired` and `planner`, and
the content that is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EXPECTATIONS_TYPE = "aim.expectations"
"""Type of the state event in a space of ours that tells the bots of other servers what we expect of them. Its
state key is our bot's MXID: by the authorization rules nobody else can set it."""
EXPECTATIONS_VERSION = 1


@dataclass(frozen=True, slots=True)
class ExpectedGroup:
    """A group of the directory there whose members belong in the space."""

    external_id: str
    """Empty: everyone there."""
    power_level: int = 0


@dataclass(frozen=True, slots=True)
class Expectations:
    """What one server expects of others in a space that it made."""

    version: int = EXPECTATIONS_VERSION
    """Of a newer version than we know nothing else is told."""
    agents: Mapping[str, tuple[ExpectedGroup, ...]] = field(default_factory=dict)
    """MXID of the bot there → its groups."""
    former: Mapping[str, int] = field(default_factory=dict)
    """MXID of a bot that is expected to remove its people and leave → since when, milliseconds."""

    @property
    def is_understood(self) -> bool:
        return self.version <= EXPECTATIONS_VERSION

    @property
    def content(self) -> Mapping[str, object]:
        """As it is written. Groups keep their order."""
        return {
            "version": self.version,
            "agents": {
                agent: {
                    "groups": [
                        {"external_id": group.external_id, "power_level": group.power_level}
                        for group in groups
                    ]
                }
                for agent, groups in sorted(self.agents.items())
            },
            "former": {agent: {"since": since} for agent, since in sorted(self.former.items())},
        }


@dataclass(frozen=True, slots=True)
class Origin:
    """The `aim` of another server that made a room, as the room's create event tells."""

    agent: str
    """MXID of its bot, which sent that event."""
    version: int
    """Of its marker."""
    key: str
    """What it calls the room."""


def server_of(mxid: str) -> str:
    """The server's name in a Matrix user id: all after the first colon, as it may hold a port, or be an IPv6
    address in brackets. "" for what is no user id."""
    return mxid.partition(":")[2] if mxid.startswith("@") else ""
