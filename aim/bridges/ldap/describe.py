"""What `aim check` tells about an LDAP source: everything on the way from the uri to the entries.

In come the settings; out goes a Description that reaches as far as things went well, and the error that ended
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ldap3.operation.extended import extended_operation

from aim.bridges.ldap import ber, faults
from aim.bridges.ldap.changes import find
from aim.bridges.ldap.channel import Channel, Line
from aim.bridges.ldap.connect import Link, connected
from aim.bridges.ldap.search import everything
from aim.bridges.ldap.settings import LdapSettings
from aim.bridges.ldap.tls import TlsFacts
from aim.directory.entries import Attributes, Rules, candidates, stable_id
from aim.directory.kinds import kind_of
from aim.directory.model import GroupKind
from aim.directory.people import is_trust_account
from aim.errors import SourceError

_WHO_AM_I = "1.3.6.1.4.1.4203.1.11.3"
_GLOBAL_CATALOGUE = (":3268", ":3269")


@dataclass(slots=True)
class Description:
    """Facts in the order in which they are found."""

    uri: str = ""
    """Which of the configured servers is used; empty if none can be."""
    address: str = ""
    vendor: str = ""
    host: str = ""
    passed_over: tuple[str, ...] = ()
    """Why servers that come first are not used."""
    tls: TlsFacts | None = None
    bound_as: str = ""
    """What the server calls us; `anonymous` for nobody."""
    entries: int = 0
    users: int = 0
    containers: Mapping[GroupKind, int] = field(default_factory=dict)
    empty: Mapping[str, int] = field(default_factory=dict)
    """What is read from attributes (`uid: uid or samaccountname`) → how many users have none of them."""
    method: str = ""
    """How changes are found."""
    warnings: tuple[tuple[str, str], ...] = ()
    """What works but should not stay like this: cause and remedy."""
    error: SourceError | None = None
    """What ended it; None if everything went well."""


def describe(settings: LdapSettings, line: Line) -> Description:
    """Tries everything for real; changes nothing."""
    found = Description()
    try:
        with connected(settings, line) as link:
            _connection(found, link, settings)
            _count(found, link, settings)
        with connected(settings, line) as link:
            found.method = find(link, settings).method
    except SourceError as error:
        found.error = error
    return found


def _connection(found: Description, link: Link, settings: LdapSettings) -> None:
    found.uri, found.address, found.tls = link.uri, link.address, link.tls
    found.vendor, found.host = link.root.vendor, link.root.host
    found.passed_over = tuple(error.message for error in link.passed_over)
    found.bound_as = _who(link.channel) or settings.bind_dn or "anonymous"
    warnings = []
    if link.tls is None and settings.bind_password is not None:
        warnings.append(
            (
                f"the password goes to {link.uri} unencrypted",
                "Use an ldaps:// uri, or set source.start_tls.",
            )
        )
    if link.uri.endswith(_GLOBAL_CATALOGUE):
        warnings.append(
            (
                f"{link.uri} is a global catalogue, which lacks attributes and members of groups",
                "Use the domain controller's own port: 636, or 389 with source.start_tls.",
            )
        )
    found.warnings = tuple(warnings)


def _who(channel: Channel) -> str:
    """What the server calls us (RFC 4532); empty if it does not say."""
    *_, piece = channel.answer(channel.send("extendedReq", extended_operation(_WHO_AM_I)))
    result = channel.result(piece)
    if result.code != faults.SUCCESS:
        return ""
    with faults.decoding(channel.uri):
        _, value = ber.named(piece.buffer, result.rest, piece.message.end, 0x8A)
    said = faults.told(channel.discreet((value or b"").decode("utf-8", "replace")))
    return said.removeprefix("dn:").removeprefix("u:") or "anonymous"


def _count(found: Description, link: Link, settings: LdapSettings) -> None:
    rules = settings.rules
    containers: Counter[GroupKind] = Counter()
    empty = Counter(dict.fromkeys(_purposes(rules), 0))
    for entry in everything(link.channel, settings):
        found.entries += 1
        attributes = entry.attributes
        kind = kind_of(tuple(attributes.get("objectclass", ())))
        if kind.container is not None:
            containers[kind.container] += 1
        if kind.is_person and not is_trust_account(attributes):
            found.users += 1
            empty.update(_empty(attributes, rules))
    found.containers, found.empty = containers, empty


def _purposes(rules: Rules) -> list[str]:
    wanted = {"uid": rules.uid, "name": rules.name, "mail": rules.mail}
    return [*(f"{what}: {' or '.join(names)}" for what, names in wanted.items()), "id: a stable one"]


def _empty(attributes: Attributes, rules: Rules) -> list[str]:
    has = [bool(candidates(attributes, names)) for names in (rules.uid, rules.name, rules.mail)]
    has.append(stable_id(attributes, rules.id) is not None)
    return [what for what, there in zip(_purposes(rules), has, strict=True) if not there]
