"""The bots of other servers in the spaces that we make: who they are, and what is expected of them. Pure.

In: the configuration of a space. Out: bot → its groups, and problems for those that can't be asked in. What
is done about them is `planner.agents`' to say; what we do in the spaces of others, `desired.federated`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aim.config.provisioner import FederationConfig
from aim.config.spaces import SpaceConfig
from aim.directory.model import Problem, Severity
from aim.world.federation import ExpectedGroup, server_of

Agents = Mapping[str, tuple[ExpectedGroup, ...]]
"""MXID of the bot → what is expected of it."""


def agents_of(space: SpaceConfig, federation: FederationConfig, server_name: str) -> Agents:
    """Those that are asked in. Groups stand in the order of the configuration, which counts for nothing."""
    if space.room is not None:
        return {}
    agents: dict[str, list[ExpectedGroup]] = {}
    for group in space.federated_groups:
        if _obstacle(group.agent, federation, server_name) is None:
            expected = ExpectedGroup(group.external_id, group.power_level)
            agents.setdefault(group.agent, []).append(expected)
    return {agent: tuple(groups) for agent, groups in agents.items()}


def agent_problems(space: SpaceConfig, federation: FederationConfig, server_name: str) -> Iterator[Problem]:
    """What of `federatedGroups` has no effect, or not all."""
    if space.room is not None and space.federated_groups:
        text = (
            "federatedGroups have no effect in a space that is taken over: the other server trusts only a "
            "space that we made; leave `room` out, under a new id"
        )
        yield Problem(Severity.ERROR, space.id, text)
        return
    for agent in dict.fromkeys(group.agent for group in space.federated_groups):
        if obstacle := _obstacle(agent, federation, server_name):
            yield Problem(Severity.ERROR, space.id, f"{agent} is not asked in: {obstacle}")
    most = federation.max_power_level
    for group in space.federated_groups:
        if group.power_level > most:
            text = (
                f"{group.agent} can give members of {group.external_id!r} level {most} at most, not "
                f"{group.power_level}: that is provisioner.federation.max_power_level"
            )
            yield Problem(Severity.WARNING, space.id, text)


def _obstacle(agent: str, federation: FederationConfig, server_name: str) -> str | None:
    if server_of(agent) == server_name:
        return "it is of our own homeserver, whose people `groups` names"
    if agent not in federation.federates_with:
        return "it is not among provisioner.federation.federates_with"
    return None
