"""`aim check` of an LDAP source: the connection, its certificate, and what the entries have."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aim.check.words import SOON, count, failed
from aim.config.sources import LdapSource
from aim.directory.model import GroupKind
from aim.matrix.check import Finding, Verdict

if TYPE_CHECKING:
    from aim.bridges.ldap.describe import Description
    from aim.bridges.ldap.tls import TlsFacts

_KINDS = {
    GroupKind.DOMAIN: ("domain", "domains"),
    GroupKind.OU: ("organisational unit", "organisational units"),
    GroupKind.GROUP: ("group", "groups"),
}
_EMPTY = {
    "uid": (
        "they are left out",
        "Let source.attributes.uid name an attribute that all have, or leave these out by source.filter.",
    ),
    "id": (
        "their DN stands in, so that somebody who is renamed or moved needs `aim rebind`",
        "Let the account read entryUUID (OpenLDAP), objectGUID (Active Directory) or nsUniqueId (389ds), or"
        " set source.attributes.id.",
    ),
}
"""What every user should have: what comes of it where not, and the remedy."""


def ldap_findings(found: Description, source: LdapSource, now: datetime) -> list[Finding]:
    """What was found of an LDAP source, as far as things went well, and what ended it."""
    findings = [*_connection(found, source, now), *_entries(found, source)] if found.uri else []
    if found.error is not None:
        findings.append(failed(_broken(found), found.error))
    elif found.method:
        message = f"asked for every {source.check_interval_seconds:g} s, by {found.method}"
        findings.append(Finding("changes", Verdict.OK, message))
    return findings


def _broken(found: Description) -> str:
    """The question at which it ended."""
    if not found.uri:
        return "ldap"
    if not found.entries:
        return "base"
    return "changes" if found.empty else "entries"


def _connection(found: Description, source: LdapSource, now: datetime) -> Iterator[Finding]:
    for cause in found.passed_over:
        yield Finding(
            "ldap", Verdict.WARN, f"passed over: {cause}", "Mend it, or take that server out of source.uri."
        )
    server = ", ".join(filter(None, (found.vendor, found.host)))
    message = f"connected to {found.uri} at {found.address}" + (f": {server}" if server else "")
    yield Finding("ldap", Verdict.OK, message)
    for cause, remedy in found.warnings:
        yield Finding("ldap", Verdict.WARN, cause, remedy)
    if found.tls is not None:
        yield _tls(found.tls, now)
    elif source.bind_password is None:
        yield Finding(
            "tls",
            Verdict.WARN,
            "the connection is not encrypted: who is in between can read and change what the server says",
            "Use an ldaps:// uri, or set source.start_tls.",
        )
    yield Finding("login", Verdict.OK, f"logged in as {found.bound_as}")


def _tls(facts: TlsFacts, now: datetime) -> Finding:
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(facts.not_after), UTC)
    message = (
        f"{facts.version} with {facts.cipher}; the certificate is issued by {facts.issuer or 'nobody named'}"
        f" and ends on {ends:%Y-%m-%d}"
    )
    if ends - now < SOON:
        return Finding(
            "tls",
            Verdict.WARN,
            f"{message}, in {max(0, (ends - now).days)} days",
            "Renew the server's certificate before then: afterwards nothing can be read.",
        )
    return Finding("tls", Verdict.OK, message)


def _entries(found: Description, source: LdapSource) -> Iterator[Finding]:
    if not found.entries:
        return
    yield Finding("base", Verdict.OK, f"{found.entries} entries can be read below {source.base}")
    if not found.empty:
        return
    counts = [count(found.users, "user", "users")]
    counts += [count(found.containers.get(kind, 0), *words) for kind, words in _KINDS.items()]
    if found.users:
        yield Finding("entries", Verdict.OK, ", ".join(counts))
        yield from _attributes(found)
    else:
        yield Finding(
            "entries",
            Verdict.WARN,
            ", ".join(counts),
            "Check source.base and source.filter, and that the account may see people.",
        )


def _attributes(found: Description) -> Iterator[Finding]:
    """Which of the attributes in use users lack. Without a name or an address one can live."""
    complete = []
    for purpose, lacking in found.empty.items():
        what, _, names = purpose.partition(": ")
        message = f"{lacking} of {found.users} users without {what} ({names})"
        if not lacking:
            complete.append(what)
        elif what in _EMPTY:
            consequence, remedy = _EMPTY[what]
            yield Finding("attributes", Verdict.WARN, f"{message}: {consequence}", remedy)
        elif lacking == found.users:
            remedy = f"Check source.attributes.{what}, and that the account may read that attribute."
            yield Finding("attributes", Verdict.WARN, message, remedy)
        else:
            yield Finding("attributes", Verdict.OK, message)
    if complete:
        yield Finding("attributes", Verdict.OK, f"every user has: {', '.join(complete)}")
