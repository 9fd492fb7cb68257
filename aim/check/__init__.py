"""`aim check`: tries everything for real, reads only. One finding per question, each with its remedy.

Stands beside `app`, whose wiring it uses: one module for each thing that is asked about. The questions about
the homeserver are in `matrix.check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aim import app
from aim.check.peers import peer_findings
from aim.check.running import database_findings, mail_findings, stream_findings
from aim.check.source import source_findings
from aim.check.words import failed
from aim.config.load import load_config
from aim.errors import AimError, ConfigError
from aim.matrix.check import Finding, Verdict
from aim.matrix.check import check as check_homeserver

__all__ = ["check"]


async def check(path: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Everything, in the order in which one thing needs the other. Raises nothing that a finding can say."""
    try:
        loaded = load_config(path, environ)
    except ConfigError as error:
        return [failed("config", error)]
    config = loaded.config
    findings = [Finding("config", Verdict.OK, f"{path} is well-formed")]
    findings += [Finding("config", Verdict.WARN, warning) for warning in loaded.warnings]
    findings += await source_findings(config)
    versions = [
        room.properties.room_version
        for room in config.provisioner.default_rooms
        if room.properties.room_version is not None
    ]
    try:
        findings += await check_homeserver(
            app.homeserver_of(config),
            versions,
            manages_accounts=config.user_provisioner is not None,
            registers_users=config.registers_users,
        )
    except AimError as error:
        findings.append(failed("homeserver", error))
    findings += await database_findings(config)
    settings = app.mail_settings(config)
    if settings is not None:
        findings += await mail_findings(settings)
    try:
        findings += [finding async for finding in stream_findings(config)]
    except AimError as error:
        findings.append(failed("stream", error))
    try:
        findings += [finding async for finding in peer_findings(config)]
    except AimError as error:
        findings.append(failed("federation", error))
    return findings
