"""`aim check` of a source that others push to by SCIM: how it grows, who may, and whether clients find it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from aim import app
from aim.check.words import failed
from aim.config.root import Config
from aim.config.sources import ScimSource
from aim.errors import AimError
from aim.matrix.check import Finding, Verdict
from aim.scim import refuse_unreachable, unapplied_in, username_of
from aim.store import open_mirror

_SHORTEST = 20
"""Fewer characters of a token are warned of."""


async def scim_findings(config: Config, source: ScimSource) -> AsyncIterator[Finding]:
    """Everything. Raises ConfigError for what `aim run` would refuse, and StoreError."""
    refuse_unreachable(config, source)
    username_of(source)
    for finding in guessable(source):
        yield finding
    for finding in await pushed_findings(config):
        yield finding
    async for finding in _outside(config, source):
        yield finding


async def pushed_findings(config: Config) -> list[Finding]:
    """How the store that others fill grows, and whether its localparts are up to date. Raises StoreError."""
    assert isinstance(config.source, ScimSource), "nobody else is pushed to"
    async with app.pushed(config, read_only=True) as store:
        growth, warning = await store.growth(), await unapplied_in(store, config.source)
    last = f"last written at {growth.last_write:%Y-%m-%d %H:%M} UTC" if growth.last_write else "never written"
    text = f"{growth.users} users ({growth.active} active), {growth.groups} groups, {last}"
    if growth.ready_since is None:
        remedy = "when all are there, say so with `aim scim ready`: until then nobody is removed"
        found = Finding("scim", Verdict.WARN, f"still filling: {text}", remedy)
    else:
        found = Finding("scim", Verdict.OK, text)
    return [found] if warning is None else [found, Finding("scim", Verdict.WARN, warning)]


def guessable(source: ScimSource) -> Iterator[Finding]:
    """Tokens that are too short for what they open."""
    tokens = [grant.token.get_secret_value() for grant in source.client.grants if grant.token is not None]
    short = sum(len(token) < _SHORTEST for token in tokens)
    if short:
        which = "the client's token has" if len(tokens) == 1 else f"{short} of {len(tokens)} tokens have"
        yield Finding(
            "scim",
            Verdict.WARN,
            f"{which} fewer than {_SHORTEST} characters: whoever guesses one is let in",
            "`aim scim token new` makes one that nobody guesses",
        )


async def _outside(config: Config, source: ScimSource) -> AsyncIterator[Finding]:
    """Whether clients find it by its public URL, if that is configured. Raises StoreError."""
    url = source.public_url
    if url is None:
        return
    if url.startswith("http:"):
        yield Finding(
            "scim",
            Verdict.WARN,
            f"{url} is not encrypted: who is in between can read tokens and people, and use the tokens",
            "let what is in front of aim serve https, and write that into source.public_url",
        )
    async with open_mirror(app.database_url(config), config.data_dir) as mirror:
        if mirror is None:
            text = f"aim run does not run: whether {url} leads to it is seen when it does"
            yield Finding("scim", Verdict.OK, text)
            return
    # Only who is pushed to needs it.
    from aim.bridges.scim.outside import try_outside

    try:
        yield Finding("scim", Verdict.OK, await try_outside(url, reading_token(source)))
    except AimError as error:
        yield failed("scim", error)


def reading_token(source: ScimSource) -> str | None:
    """A token that may read users; None if there is none in the configuration."""
    reading = {"*:*", "*:users", "read:*", "read:users"}
    tokens = (grant.token for grant in source.client.grants if not reading.isdisjoint(grant.roles))
    return next((token.get_secret_value() for token in tokens if token is not None), None)
