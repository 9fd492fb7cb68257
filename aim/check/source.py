"""`aim check` of the source: what its kind is asked, and then what was read, whatever it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from aim import app
from aim.check.graph import found_of_graph
from aim.check.ldap import ldap_findings
from aim.check.scim import scim_findings
from aim.check.words import count, failed
from aim.config.root import Config
from aim.config.sources import LdapSource, MsGraphSource, ScimSource
from aim.config.spaces import SpaceConfig
from aim.desired.unknown import unknown_group
from aim.directory.model import Directory, Problem, Severity
from aim.directory.roster import Roster
from aim.errors import AimError
from aim.matrix.check import Finding, Verdict

_NUMBER = re.compile(r"\d+")
_ALIKE = 5
"""So many problems of a kind are shown; further ones are counted."""

_UNUSABLE = "Let source.attributes.uid name the attribute that has the user names: everybody needs one."
_NOBODY = "Check that the source holds people, and that we may see them: nobody would be invited anywhere."


async def source_findings(config: Config) -> list[Finding]:
    """Everything. Raises nothing that a finding can say."""
    findings: list[Finding] = []
    try:
        if isinstance(config.source, LdapSource):
            found = await app.ldap_source_of(config.source).describe()
            findings += ldap_findings(found, config.source, app.now())
            if found.error is not None:
                return findings
        if isinstance(config.source, MsGraphSource):
            findings += await found_of_graph(config.source)
            if any(finding.verdict is Verdict.FAIL for finding in findings):
                return findings
        if isinstance(config.source, ScimSource):
            async for finding in scim_findings(config, config.source):
                findings.append(finding)
        async with app.opened_source(config) as source:
            directory = await source.read(Roster())
    except AimError as error:
        return [*findings, failed("source", error)]
    findings += directory_findings(directory)
    findings += _unknown_groups(directory, config)
    return findings


def directory_findings(directory: Directory) -> Iterator[Finding]:
    """What was read, by any bridge, and what a person should know about it."""
    disabled = sum(not user.active for user in directory.users)
    counts = [count(len(directory.users), "user", "users"), f"{disabled} disabled"]
    counts.append(count(len(directory.groups), "group", "groups"))
    message = f"{', '.join(counts)} from {directory.source}"
    if directory.users:
        yield Finding("source", Verdict.OK, message)
    elif directory.unresolved:
        message += f", and {count(len(directory.unresolved), 'person', 'people')} who can't be made a user"
        yield Finding("source", Verdict.FAIL, message, _UNUSABLE)
    else:
        yield Finding("source", Verdict.WARN, message, _NOBODY)
    yield from _problems(directory)


def _problems(directory: Directory) -> Iterator[Finding]:
    """Of each kind the first few: a wrong key in the configuration is a problem of everybody."""
    alike: dict[str, list[Problem]] = defaultdict(list)
    for problem in directory.problems:
        if problem.severity is not Severity.INFO:
            kind = re.split("[:;]", _NUMBER.sub("", problem.message), maxsplit=1)[0]
            alike[kind].append(problem)
    for problems in alike.values():
        for problem in problems[:_ALIKE]:
            yield Finding("source", Verdict.WARN, f"{problem.subject}: {problem.message}")
        if len(problems) > _ALIKE:
            message = f"and {len(problems) - _ALIKE} more like these"
            yield Finding("source", Verdict.WARN, message, "`aim directory` shows all of them.")


def _unknown_groups(directory: Directory, config: Config) -> Iterator[Finding]:
    for space in _all(config.spaces):
        for group in space.groups:
            if group.external_id and not directory.find(group.external_id):
                problem = unknown_group(directory, space.id, group.external_id)
                yield Finding("spaces", Verdict.WARN, f"{problem.subject}: {problem.message}")


def _all(spaces: tuple[SpaceConfig, ...]) -> Iterator[SpaceConfig]:
    for space in spaces:
        yield space
        yield from _all(space.subspaces)
