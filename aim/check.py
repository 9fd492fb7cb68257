"""`aim check`: tries everything for real, reads only. One finding per question, each with its remedy.

Stands beside `app`, whose wiring it uses; the questions about the homeserver are in `matrix.check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from aim import app
from aim.config.load import load_config
from aim.config.root import Config
from aim.config.spaces import SpaceConfig
from aim.desired.unknown import unknown_group
from aim.directory.model import Directory, Severity
from aim.directory.roster import Roster
from aim.errors import AimError, ConfigError
from aim.matrix.check import Finding, Verdict
from aim.matrix.check import check as check_homeserver
from aim.store import open_reader


async def check(path: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Everything, in the order in which one thing needs the other. Raises nothing that a finding can say."""
    try:
        loaded = load_config(path, environ)
    except ConfigError as error:
        return [_failed("config", error)]
    config = loaded.config
    findings = [Finding("config", Verdict.OK, f"{path} is well-formed")]
    findings += [Finding("config", Verdict.WARN, warning) for warning in loaded.warnings]
    findings += await _source(config)
    versions = [
        room.properties.room_version
        for room in config.provisioner.default_rooms
        if room.properties.room_version is not None
    ]
    try:
        findings += await check_homeserver(app.homeserver_of(config), versions)
    except AimError as error:
        findings.append(_failed("homeserver", error))
    findings.append(await _database(config))
    return findings


async def _source(config: Config) -> list[Finding]:
    try:
        directory = await app.source_of(config).read(Roster())
    except AimError as error:
        return [_failed("source", error)]
    count = f"{len(directory.users)} users and {len(directory.groups)} groups from {directory.source}"
    findings = [Finding("source", Verdict.OK, count)]
    findings += [
        Finding("source", Verdict.WARN, f"{problem.subject}: {problem.message}")
        for problem in directory.problems
        if problem.severity is not Severity.INFO
    ]
    findings += _unknown_groups(directory, config)
    return findings


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


async def _database(config: Config) -> Finding:
    url = app.database_url(config)
    kind = "Postgres answers" if url else f"embedded Postgres in {config.data_dir}"
    try:
        async with open_reader(url, config.data_dir) as reader:
            recorded = await reader.load(Roster(), app.now())
    except AimError as error:
        return _failed("database", error)
    if recorded.fresh:
        return Finding("database", Verdict.OK, f"{kind}, nothing is recorded yet")
    if recorded.recovery_since is not None:
        return Finding(
            "database",
            Verdict.WARN,
            f"{kind}, in recovery since {recorded.recovery_since:%Y-%m-%d %H:%M} UTC: nothing is removed",
            "look at `aim plan`; if its removals are right, approve them with `aim approve DIGEST`",
        )
    known = sum(seen.gone_since is None for seen in recorded.seen.values())
    return Finding("database", Verdict.OK, f"{kind}, {len(recorded.rooms)} rooms and {known} users are known")


def _failed(name: str, error: AimError) -> Finding:
    return Finding(name, Verdict.FAIL, error.message, error.remedy)
