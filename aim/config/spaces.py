"""Models of the spaces to maintain: who belongs in them, and with which power level."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from aim.config.document import Block, Items
from aim.config.fields import Mxid, PowerLevel, RoomName, Text, as_list
from aim.config.section import Section


class GroupConfig(Section):
    """A group of the directory whose members belong in a space."""

    external_id: str
    """The group's id in the directory; empty for everyone."""
    power_level: PowerLevel = 0


class FederatedGroupConfig(Section):
    """A group of another server's directory, which the agent there looks after."""

    external_id: str
    power_level: PowerLevel = 0
    agent: Mxid
    """MXID of the bot there."""


def _with_agents(value: object) -> object:
    """Hands an agent that is given once to each group of the list.

    Accepted: a list of groups with an agent each; a list with an item `agent: …` alone, good for the groups
    after it; a mapping of `agent` and `groups`.
    """
    if isinstance(value, Block) and "groups" in value:
        return _from_mapping(value)
    if not isinstance(value, Items):
        return as_list(value)
    result = Items(value.place)
    agent: Block | None = None
    for item, place in zip(value, value.places, strict=True):
        if isinstance(item, Block) and set(item) == {"agent"}:
            agent = item
            continue
        result.append(_with_agent(item, agent))
        result.places.append(place)
    return result


def _from_mapping(block: Block) -> object:
    strangers = sorted(set(block) - {"agent", "groups"})
    if strangers:
        raise ValueError("a mapping takes the keys agent and groups only")
    groups = block["groups"]
    if not isinstance(groups, Items):
        raise ValueError("its groups must be a list")  # noqa: TRY004 - for pydantic
    result = Items(groups.place)
    result.places = groups.places
    result.extend(_with_agent(item, block if "agent" in block else None) for item in groups)
    return result


def _with_agent(item: object, agent: Block | None) -> object:
    if agent is None or not isinstance(item, Block) or "agent" in item:
        return item
    twin = item.copy()
    twin.put("agent", agent["agent"], agent.place_of("agent"))
    return twin


class SpaceConfig(Section):
    """A space. Its members are those of its groups and, recursively, of its subspaces."""

    id: Text
    """Never shown to anyone; a new id is a new space."""
    name: Text
    room: RoomName | None = None
    """Alias or id of an existing space to take over; None: one is made."""
    groups: Annotated[tuple[GroupConfig, ...], BeforeValidator(as_list)] = ()
    federated_groups: Annotated[tuple[FederatedGroupConfig, ...], BeforeValidator(_with_agents)] = ()
    subspaces: Annotated[tuple[SpaceConfig, ...], BeforeValidator(as_list)] = ()
