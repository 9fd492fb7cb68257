"""`aim check` of other servers: how things stand with each that we share spaces with."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aim import app
from aim.config.root import Config
from aim.matrix.check import Finding, Verdict
from aim.matrix.peers import PeerFacts, peer_facts
from aim.store import open_mirror


async def peer_findings(config: Config) -> AsyncIterator[Finding]:
    """How things stand with each server that we share spaces with. Raises StoreError."""
    peers = config.provisioner.federation.federates_with
    if not peers:
        return
    if "listen" not in config.model_fields_set:
        text = "without `listen` nobody tells us of invites: we share our spaces, and never come into theirs"
        yield Finding("federation", Verdict.WARN, text, "give `listen`, and let `aim run` run")
    async with open_mirror(app.database_url(config), config.data_dir) as mirror:
        if mirror is None:
            text = f"{', '.join(peers)}: aim run does not run; how it stands with them is seen when it does"
            yield Finding("federation", Verdict.OK, text)
            return
        for facts in await peer_facts(mirror, app.homeserver_of(config).home, peers):
            yield peer_finding(facts, app.homeserver_of(config).bot)


def peer_finding(facts: PeerFacts, bot: str) -> Finding:
    """What there is to say of one of them."""
    seen = f"last seen at {facts.last_seen:%Y-%m-%d %H:%M} UTC" if facts.last_seen else "never seen"
    text = (
        f"{facts.bot}: is in {facts.joined} of our rooms, asked into {facts.invited} more; we are in "
        f"{facts.shared} of its rooms, asked into {facts.asked_into} more; {seen}"
    )
    if facts.newer:
        return Finding(
            "federation", Verdict.WARN, f"{text}; it is a newer aim than this one", "upgrade this one"
        )
    if facts.silent:
        text = f"{text}; in {facts.silent} spaces it has not said, so that we understand it, whom it expects"
        return Finding("federation", Verdict.WARN, text, "its own admin sees why: `aim check` there")
    if facts.invited:
        remedy = (
            f"its admin has to list {bot} in provisioner.federation.federates_with, and its aim has to run"
        )
        return Finding("federation", Verdict.WARN, text, remedy)
    shared = "; its version is understood" if facts.shared else ""
    return Finding("federation", Verdict.OK, text + shared)
