"""What `aim check` says of an LDAP source: everything that is well, and each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aim import app
from aim.bridges.ldap.describe import Description
from aim.bridges.ldap.tls import TlsFacts
from aim.check.ldap import ldap_findings
from aim.config import sources
from aim.directory.model import GroupKind
from aim.errors import SourceUnavailable
from aim.matrix.check import Finding, Verdict
from tests.servers import samba as ad
from tests.servers.certificates import Certificates
from tests.servers.process import free_port
from tests.servers.samba import Samba
from tests.servers.slapd import PASSWORD, READER, SEARCHER, SUFFIX, Slapd

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def source_of(slapd: Slapd, **options: object) -> sources.LdapSource:
    given: dict[str, Any] = {
        "type": "ldap",
        "uri": slapd.tls_uri,
        "ca_cert": slapd.ca,
        "base": SUFFIX,
        "bind_dn": READER,
        "bind_password": PASSWORD,
    }
    return sources.LdapSource.model_validate(given | options)


async def findings(source: sources.LdapSource) -> list[Finding]:
    found = ldap_findings(await app.ldap_source_of(source).describe(), source, app.now())
    for finding in found:
        assert finding.remedy or finding.verdict is Verdict.OK
        assert "\n" not in finding.message + finding.remedy
    return found


def said(found: Sequence[Finding]) -> list[str]:
    return [f"{finding.verdict} {finding.name}: {finding.message}" for finding in found]


async def test_openldap(slapd: Slapd) -> None:
    ldap, tls, login, *rest = said(await findings(source_of(slapd)))
    assert ldap == f"ok ldap: connected to {slapd.tls_uri} at 127.0.0.1: OpenLDAP"
    assert tls.startswith("ok tls: TLSv1.3 with TLS_")
    assert "; the certificate is issued by organizationName=Example, " in tls
    assert login == f"ok login: logged in as {READER}"
    assert rest == [
        f"ok base: 28 entries can be read below {SUFFIX}",
        "ok entries: 14 users, 1 domain, 6 organisational units, 7 groups",
        "warn attributes: 1 of 14 users without uid (uid): they are left out",
        "ok attributes: 5 of 14 users without mail (mail)",
        "ok attributes: every user has: name, id",
        "ok changes: asked for every 60 s, by syncrepl",
    ]


async def test_active_directory(samba: Samba) -> None:
    given = {
        "type": "ldap",
        "uri": samba.uri,
        "base": ad.EMPLOYEES,
        "bind_dn": ad.ADMIN,
        "bind_password": ad.ADMIN_PASSWORD,
        "attributes": {"uid": "sAMAccountName", "name": "name"},
    }
    ldap, unencrypted, login, *rest = said(await findings(sources.LdapSource.model_validate(given)))
    assert ldap.startswith(f"ok ldap: connected to {samba.uri} at {samba.address}: Active Directory, CN=")
    assert unencrypted == f"warn ldap: the password goes to {samba.uri} unencrypted"
    assert login == f"ok login: logged in as {ad.ADMIN}"
    assert rest[1] == "ok entries: 8 users, 0 domains, 5 organisational units, 6 groups"
    assert rest[-1] == "ok changes: asked for every 60 s, by DirSync"


async def test_nobody_there_and_nobody_instead(slapd: Slapd) -> None:
    gone = f"ldaps://127.0.0.1:{free_port()}"
    (finding,) = await findings(source_of(slapd, uri=gone))
    assert said([finding]) == [f"fail ldap: {gone}: no connection: Connection refused"]
    assert "firewall" in finding.remedy

    passed_over, ldap, *_ = said(await findings(source_of(slapd, uri=[gone, slapd.tls_uri])))
    assert passed_over == f"warn ldap: passed over: {gone}: no connection: Connection refused"
    assert ldap.startswith(f"ok ldap: connected to {slapd.tls_uri} ")


async def test_a_name_that_nobody_knows(slapd: Slapd) -> None:
    (finding,) = await findings(source_of(slapd, uri="ldap://nobody.invalid"))
    assert said([finding]) == ["fail ldap: ldap://nobody.invalid: the name nobody.invalid is unknown"]


async def test_a_wrong_password(slapd: Slapd) -> None:
    (finding,) = await findings(source_of(slapd, bind_password="not-that-one"))
    refusal = f"{slapd.tls_uri}: the server refuses to log us in: wrong name or password (result 49)"
    assert said([finding]) == [f"fail ldap: {refusal}"]
    assert "source.bind_password" in finding.remedy


async def test_a_certificate_that_is_not_trusted(slapd: Slapd, other_certificates: Certificates) -> None:
    (finding,) = await findings(source_of(slapd, ca_cert=other_certificates.ca))
    assert finding.verdict is Verdict.FAIL
    assert "the certificate of 127.0.0.1 can't be trusted: " in finding.message
    assert "source.ca_cert" in finding.remedy


async def test_a_base_that_does_not_exist(slapd: Slapd) -> None:
    base = f"ou=gone,{SUFFIX}"
    *well, finding = await findings(source_of(slapd, base=base))
    assert [one.name for one in well] == ["ldap", "tls", "login"]
    assert (finding.name, finding.verdict) == ("base", Verdict.FAIL)
    assert f"{base} does not exist, or the account may not see it" in finding.message
    assert finding.message.endswith(f"; the nearest that is there is {SUFFIX}")


async def test_an_account_that_sees_nothing(slapd: Slapd) -> None:
    *well, finding = await findings(source_of(slapd, bind_dn=SEARCHER))
    assert [one.name for one in well] == ["ldap", "tls", "login"]
    assert (finding.name, finding.verdict) == ("base", Verdict.FAIL)
    assert finding.message == f"{slapd.tls_uri}: {SUFFIX} exists, but {SEARCHER} may see nothing in it"


async def test_nobody_in_particular_without_tls(slapd: Slapd) -> None:
    source = sources.LdapSource.model_validate({"type": "ldap", "uri": slapd.uri, "base": SUFFIX})
    found = {finding.name: finding for finding in await findings(source)}
    assert found["login"].message == "logged in as anonymous"
    assert found["tls"].verdict is Verdict.WARN
    assert "not encrypted" in found["tls"].message


async def test_groups_without_people(slapd: Slapd) -> None:
    found = await findings(source_of(slapd, base=f"ou=groups,{SUFFIX}"))
    (entries,) = (finding for finding in found if finding.name == "entries")
    assert entries.verdict is Verdict.WARN
    assert entries.message == "0 users, 0 domains, 1 organisational unit, 7 groups"


# -- what takes a particular moment ----------------------------------------------------------------------

SOURCE = sources.LdapSource.model_validate({"type": "ldap", "uri": "ldap://a", "base": "dc=a"})
FOUND = Description(
    uri="ldap://a",
    address="127.0.0.1",
    bound_as="anonymous",
    tls=TlsFacts("TLSv1.3", "AES", "CN=a", "CN=authority", "Jan 21 12:00:00 2030 GMT"),
    entries=3,
    users=2,
    containers={GroupKind.GROUP: 1},
    empty={"uid: uid": 0, "name: cn": 0, "mail: mail": 2, "id: a stable one": 1},
    method="time stamps",
)
ERROR = SourceUnavailable("ldap://a: the connection was lost", "It is tried again.")


@pytest.mark.parametrize(
    ("days", "verdict", "end"),
    [(0, "warn", ", in 20 days"), (-9, "warn", ", in 29 days"), (-10, "ok", "-21")],
)
def test_a_certificate_that_ends_soon(days: int, verdict: str, end: str) -> None:
    found = ldap_findings(FOUND, SOURCE, NOW + timedelta(days=days))
    (tls,) = (line for line in said(found) if " tls: " in line)
    assert tls.startswith(
        f"{verdict} tls: TLSv1.3 with AES; the certificate is issued by CN=authority and ends on "
    )
    assert tls.endswith(end)


def test_attributes_that_nobody_or_not_everybody_has() -> None:
    found = [one for one in ldap_findings(FOUND, SOURCE, NOW) if one.name == "attributes"]
    assert [line.partition(":")[0] for line in said(found)] == ["warn attributes"] * 2 + ["ok attributes"]
    mail, stable, complete = found
    assert (mail.message, stable.message.partition(":")[0], complete.message) == (
        "2 of 2 users without mail (mail)",
        "1 of 2 users without id (a stable one)",
        "every user has: uid, name",
    )
    assert "source.attributes.mail" in mail.remedy
    assert "entryUUID" in stable.remedy


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ldap", Description()),
        ("base", replace(FOUND, entries=0, users=0, containers={}, empty={}, method="")),
        ("entries", replace(FOUND, users=0, containers={}, empty={}, method="")),
        ("changes", replace(FOUND, method="")),
    ],
)
def test_it_ends_where_things_go_wrong(name: str, found: Description) -> None:
    *well, last = ldap_findings(replace(found, error=ERROR), SOURCE, NOW)
    assert (last.name, last.verdict, last.message) == (name, Verdict.FAIL, ERROR.message)
    assert name not in {finding.name for finding in well} - {"ldap"}
