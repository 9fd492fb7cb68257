"""The LDAP bridge on real servers: connecting, logging in, reading, and what `aim check` is told."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from aim.bridges.ldap.bridge import LdapSource
from aim.bridges.ldap.settings import ClientCertificate, LdapSettings
from aim.directory.describe import to_json
from aim.directory.entries import Rules
from aim.directory.model import Directory, GroupKind
from aim.directory.roster import Roster
from aim.errors import SourceInvalid, SourceUnavailable
from tests.contract.ldap import members, of_samba, of_slapd, read, refused
from tests.servers import samba as ad
from tests.servers.certificates import Certificate, Certificates
from tests.servers.hostile import BASE as STAND_IN_BASE
from tests.servers.hostile import READER as STAND_IN_READER
from tests.servers.hostile import Manners, NewStandIn, organisation
from tests.servers.process import free_port
from tests.servers.samba import NewSamba, Samba
from tests.servers.slapd import OUTSIDER, READER, SEARCHER, SUFFIX, NewSlapd, Settings, Slapd

PEOPLE = f"ou=people,{SUFFIX}"


def localparts(directory: Directory) -> Sequence[str]:
    return sorted(user.localpart for user in directory.users)


# -- what is read --------------------------------------------------------------------------------------------


async def test_openldap_becomes_a_directory(slapd: Slapd) -> None:
    directory = await read(of_slapd(slapd))
    assert (directory.source, directory.name) == ("ldap", "Example")
    assert localparts(directory) == [
        *("ada", "ben", "cleo", "dan", "eva", "finn", "greta", "hal", "ida", "kim", "max=20moreau")
    ]
    by_name = {user.localpart: user for user in directory.users}
    assert by_name["ada"].display_name == "Ada Abel"
    assert by_name["ben"].emails == ("b.brandt@example.com", "ben@example.com")
    assert by_name["finn"].display_name == "Finn Fürst"
    assert by_name["ida"].active is False
    assert not any(user.weak_id for user in directory.users)
    assert members(directory, f"ou=engineering,{PEOPLE}") == ["cleo", "dan", "eva", "finn"]
    assert members(directory, "cn=leads,ou=groups,dc=example,dc=com") == ["ben", "cleo", "dan"]
    assert members(directory, "cn=unique,ou=groups,dc=example,dc=com") == ["ada", "cleo"]
    assert members(directory, "cn=posix,ou=groups,dc=example,dc=com") == ["eva", "finn"]
    assert members(directory, "cn=staff,ou=groups,dc=example,dc=com") == ["ada", "greta", "hal"]
    assert members(directory, "cn=nobody,ou=groups,dc=example,dc=com") == []


async def test_active_directory_becomes_a_directory(samba: Samba) -> None:
    directory = await read(of_samba(samba))
    assert localparts(directory) == ["ada", "ben", "cleo", "dan", "eva", "finn", "greta", "ida"]
    by_name = {user.localpart: user for user in directory.users}
    assert by_name["finn"].uid == "Finn"
    assert by_name["ida"].active is False
    # objectGUID is mixed-endian: what it is spelled like is what Windows shows.
    guid = samba.get(by_name["ada"].dn or "", "objectGUID")["objectGUID"][0]
    assert by_name["ada"].id.replace("-", "")[-16:] == guid.hex()[-16:]
    assert by_name["ada"].id.startswith(guid[3::-1].hex())
    assert members(directory, f"CN=engineering,{ad.EMPLOYEES}") == ["eva", "finn"]
    assert members(directory, f"CN=staff,{ad.EMPLOYEES}") == ["ada", "greta"]
    assert members(directory, f"CN=leads,{ad.EMPLOYEES}") == ["ben", "cleo", "dan"]


async def test_the_same_directory_is_read_whatever_the_size_of_pages(slapd: Slapd) -> None:
    whole = to_json(await read(of_slapd(slapd)))
    for size in (1, 2, 7, 22):
        assert to_json(await read(of_slapd(slapd, page_size=size))) == whole


async def test_a_name_that_is_configured_wins(slapd: Slapd) -> None:
    assert (await read(of_slapd(slapd, name="Our Company"))).name == "Our Company"


async def test_the_rules_say_which_attributes_count(slapd: Slapd) -> None:
    rules = Rules.of(uid="cn", name="sn", mail="uid")
    directory = await read(of_slapd(slapd, rules=rules, base=f"uid=ada,{PEOPLE}"))
    (ada,) = directory.users
    assert (ada.uid, ada.display_name, ada.emails) == ("Ada Abel", "Abel", ())


async def test_a_filter_hides_the_entries_it_does_not_match_and_not_what_is_below_them(slapd: Slapd) -> None:
    directory = await read(of_slapd(slapd, filter="(!(ou=engineering))"))
    assert not directory.find(f"ou=engineering,{PEOPLE}")
    assert {"cleo", "dan", "eva"} <= set(localparts(directory))
    assert members(directory, f"ou=backend,ou=engineering,{PEOPLE}") == ["eva", "finn"]


@pytest.mark.parametrize("spelled", ["uid=*a*", " (uid=*a*) ", "(&(uid=*a*)(!(cn=Fürst)))", r"(uid=*\61*)"])
async def test_filters_are_taken_as_ldapsearch_takes_them(slapd: Slapd, spelled: str) -> None:
    found = await read(of_slapd(slapd, filter=spelled))
    assert localparts(found) == ["ada", "dan", "eva", "greta", "hal", "ida", "max=20moreau"]


async def test_the_closed_products_example_works_on_active_directory(samba: Samba) -> None:
    settings = LdapSettings(
        uris=(samba.uri,),
        base="ou=employees,dc=element,dc=test",
        filter="(!(ou=Domain Controllers))",
        bind_dn="ELEMENT\\administrator",
        bind_password="donkey.8",
        rules=Rules.of(uid="sAMAccountName", name="name"),
    )
    directory = await read(settings)
    assert "ada" in localparts(directory)
    assert members(directory, "ou=engineering,ou=employees,dc=element,dc=test") == [
        "cleo",
        "dan",
        "eva",
        "finn",
    ]


# -- logging in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [r"ELEMENT\reader", "reader@element.test", f"CN=reader,CN=Users,{ad.BASE}"])
async def test_active_directory_takes_names_of_every_form(samba: Samba, name: str) -> None:
    assert len((await read(of_samba(samba, bind_dn=name))).users) == 8
    error = await refused(of_samba(samba, bind_dn=name, bind_password="not-the-password"))
    assert "wrong password, or no such account" in error.message


async def test_who_has_no_name_reads_as_nobody(slapd: Slapd) -> None:
    everything = await read(of_slapd(slapd, bind_dn=None, bind_password=None))
    assert len(everything.users) == 11


async def test_a_wrong_password_is_said_and_not_shown(slapd: Slapd) -> None:
    error = await refused(of_slapd(slapd, bind_password="not-the-password"))
    assert isinstance(error, SourceInvalid)
    assert "wrong name or password (result 49)" in error.message
    assert "source.bind_password" in error.remedy
    assert "not-the-password" not in error.message + error.remedy


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        *(("525", "no such account"), ("52e", "wrong password"), ("533", "disabled")),
        *(("532", "expired"), ("773", "has to be changed"), ("775", "locked")),
    ],
)
async def test_active_directorys_reasons_are_put_into_words(
    new_stand_in: NewStandIn, data: str, meaning: str
) -> None:
    message = f"80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data {data}, v3839"
    stand_in = new_stand_in(organisation(1), Manners(bind_result=(49, message)))
    error = await refused(
        LdapSettings(uris=(stand_in.uri,), base=STAND_IN_BASE, bind_dn="x", bind_password="y")
    )
    assert meaning in error.message


async def test_a_rejected_login_is_not_repeated_at_every_look(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(1), Manners(bind_result=(49, "")))
    settings = LdapSettings(
        uris=(stand_in.uri,), base=STAND_IN_BASE, bind_dn=STAND_IN_READER, bind_password="password"
    )
    now = datetime(2030, 1, 1, tzinfo=UTC)
    source = LdapSource(settings, lambda: now)
    with pytest.raises(SourceInvalid, match="refuses to log us in") as first:
        await source.fingerprint()
    assert "the next try is at 00:03:00 UTC" in first.value.remedy

    # From now on the server would let us in, but is not asked.
    stand_in.manners.bind_result = None
    for attempt in (source.fingerprint(), source.read(Roster()), source.entries()):
        with pytest.raises(SourceInvalid) as repeated:
            await attempt
        assert (repeated.value.message, repeated.value.remedy) == (first.value.message, first.value.remedy)

    now += timedelta(minutes=3)
    assert await source.fingerprint()
    assert (await source.read(Roster())).users


async def test_no_server_can_make_us_tell_the_password(new_stand_in: NewStandIn) -> None:
    secret = "s3cret-of-ours"
    stand_in = new_stand_in(organisation(1), Manners(bind_result=(53, f"I was told {secret}!")))
    settings = LdapSettings(uris=(stand_in.uri,), base=STAND_IN_BASE, bind_dn="x", bind_password=secret)
    error = await refused(settings)
    assert "I was told" in error.message
    described = await LdapSource(settings).describe()
    for shown in (
        error.message,
        error.remedy,
        repr(error),
        repr(error.__cause__),
        repr(settings),
        repr(described),
    ):
        assert secret not in shown


async def test_a_password_of_forbidden_characters_is_an_error_that_does_not_show_it(slapd: Slapd) -> None:
    error = await refused(of_slapd(slapd, bind_password="abc\u0007def"))
    assert "bind_password" in error.message
    assert "abc" not in repr(error) + repr(error.__cause__) + error.remedy


async def test_a_server_without_anonymous_access_says_so(new_slapd: NewSlapd) -> None:
    slapd = new_slapd(Settings(anonymous="is refused"))
    error = await refused(of_slapd(slapd, bind_dn=None, bind_password=None))
    assert "bind_dn" in error.remedy


async def test_active_directory_without_a_login_says_so(samba: Samba) -> None:
    error = await refused(of_samba(samba, bind_dn=None, bind_password=None))
    assert "has not logged in" in error.message
    assert "bind_dn" in error.remedy


# -- TLS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_tls", [False, True])
async def test_tls_is_verified_with_the_given_authority(slapd: Slapd, start_tls: bool) -> None:
    uri = slapd.uri if start_tls else slapd.tls_uri
    settings = of_slapd(slapd, uris=(uri,), start_tls=start_tls, ca_cert=slapd.ca)
    assert len((await read(settings)).users) == 11
    found = await LdapSource(settings).describe()
    assert found.tls is not None
    assert found.tls.version.startswith("TLSv1.")
    assert found.tls.not_after.endswith("GMT")
    assert found.tls.issuer


@pytest.mark.parametrize("start_tls", [False, True])
@pytest.mark.parametrize("trusted", ["the system's", "another one"])
async def test_an_unknown_authority_is_refused(
    slapd: Slapd, other_certificates: Certificates, start_tls: bool, trusted: str
) -> None:
    uri = slapd.uri if start_tls else slapd.tls_uri
    ca_cert = other_certificates.ca if trusted == "another one" else None
    error = await refused(of_slapd(slapd, uris=(uri,), start_tls=start_tls, ca_cert=ca_cert))
    assert isinstance(error, SourceUnavailable)
    assert "the certificate of 127.0.0.1 can't be trusted: " in error.message
    assert "source.ca_cert" in error.remedy


@pytest.mark.parametrize("start_tls", [False, True])
async def test_a_certificate_for_another_name_is_refused(
    new_slapd: NewSlapd, certificates: Certificates, start_tls: bool
) -> None:
    slapd = new_slapd(Settings(certificate=certificates.server("ldap.example.com")))
    uri = slapd.uri if start_tls else slapd.tls_uri
    error = await refused(of_slapd(slapd, uris=(uri,), start_tls=start_tls, ca_cert=slapd.ca))
    assert "certificate is not for 127.0.0.1" in error.message
    assert "source.uri" in error.remedy


async def test_an_expired_certificate_is_refused(new_slapd: NewSlapd, certificates: Certificates) -> None:
    slapd = new_slapd(Settings(certificate=certificates.expired("127.0.0.1")))
    error = await refused(of_slapd(slapd, uris=(slapd.tls_uri,), ca_cert=slapd.ca))
    assert "expired" in error.message
    assert "Renew" in error.remedy


async def test_what_comes_in_clear_text_before_tls_is_refused(new_stand_in: NewStandIn) -> None:
    manners = Manners(start_tls_injection=b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00")
    stand_in = new_stand_in(organisation(1), manners)
    settings = of_stand_in(stand_in.uri, start_tls=True, ca_cert=stand_in.ca)
    assert "clear text" in (await refused(settings)).message


async def test_a_server_that_refuses_start_tls_is_not_told_the_password(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(1), Manners(start_tls_result=52))
    error = await refused(of_stand_in(stand_in.uri, start_tls=True, ca_cert=stand_in.ca))
    assert "StartTLS" in error.message
    assert "Bind" not in [type(request).__name__ for request in stand_in.requests]


def of_stand_in(*uris: str, **changed: Any) -> LdapSettings:
    settings = LdapSettings(
        uris=uris,
        base=STAND_IN_BASE,
        bind_dn=STAND_IN_READER,
        bind_password="password",
        connect_timeout=3,
        read_timeout=10,
    )
    return replace(settings, **changed)


async def test_a_server_that_wants_tls_says_so(new_slapd: NewSlapd) -> None:
    slapd = new_slapd(Settings(tls_only=True))
    error = await refused(of_slapd(slapd))
    assert "source.start_tls" in error.remedy
    assert len((await read(of_slapd(slapd, uris=(slapd.tls_uri,), ca_cert=slapd.ca))).users) == 11


async def test_tls_on_a_port_without_tls_and_the_other_way_round(slapd: Slapd) -> None:
    for uri in (f"ldaps://127.0.0.1:{slapd.port}", f"ldap://127.0.0.1:{slapd.tls_port}"):
        error = await refused(of_slapd(slapd, uris=(uri,), ca_cert=slapd.ca))
        assert uri in error.message
        assert "port" in error.remedy or "server" in error.remedy


# -- our own certificate -------------------------------------------------------------------------------------


def _in_one_file(certificate: Certificate, passphrase: str | None) -> ClientCertificate:
    return ClientCertificate(file=certificate.both, passphrase=passphrase)


def _as_text(certificate: Certificate, passphrase: str | None) -> ClientCertificate:
    return ClientCertificate(pem=certificate.both.read_text(), passphrase=passphrase)


def _as_two_texts(certificate: Certificate, passphrase: str | None) -> ClientCertificate:
    pem, key = certificate.cert.read_text(), certificate.key.read_text()
    return ClientCertificate(pem=pem, key=key, passphrase=passphrase)


def _as_file_and_text(certificate: Certificate, passphrase: str | None) -> ClientCertificate:
    return ClientCertificate(file=certificate.cert, key=certificate.key.read_text(), passphrase=passphrase)


@pytest.mark.parametrize("passphrase", [None, "open sesame"])
@pytest.mark.parametrize("form", [_in_one_file, _as_text, _as_two_texts, _as_file_and_text])
async def test_a_certificate_logs_in_without_a_name(
    new_slapd: NewSlapd, certificates: Certificates, form: Any, passphrase: str | None
) -> None:
    slapd = new_slapd(Settings(clients_with_certificate_only=True, anonymous="sees nothing"))
    ours = form(certificates.client("reader", passphrase), passphrase)
    settings = of_slapd(
        slapd, uris=(slapd.tls_uri,), ca_cert=slapd.ca, certificate=ours, bind_dn=None, bind_password=None
    )
    assert len((await read(settings)).users) == 11
    assert (await LdapSource(settings).describe()).bound_as == READER
    assert "PRIVATE" not in repr(settings)
    assert "sesame" not in repr(settings)


async def test_without_the_certificate_that_the_server_wants_there_is_an_error(new_slapd: NewSlapd) -> None:
    slapd = new_slapd(Settings(clients_with_certificate_only=True))
    error = await refused(of_slapd(slapd, uris=(slapd.tls_uri,), ca_cert=slapd.ca))
    assert isinstance(error, SourceUnavailable)


@pytest.mark.parametrize("passphrase", [None, "wrong"])
async def test_a_wrong_passphrase_is_an_error_and_never_asked_for(
    slapd: Slapd, certificates: Certificates, passphrase: str | None
) -> None:
    ours = ClientCertificate(file=certificates.client("reader", "right").both, passphrase=passphrase)
    error = await refused(of_slapd(slapd, uris=(slapd.tls_uri,), ca_cert=slapd.ca, certificate=ours))
    assert "source.cert" in error.message
    assert "passphrase" in error.remedy


async def test_files_that_are_not_there_are_errors(slapd: Slapd, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    for changed in ({"ca_cert": missing}, {"certificate": ClientCertificate(file=missing)}):
        error = await refused(of_slapd(slapd, uris=(slapd.tls_uri,), **changed))
        assert "No such file" in error.message
    (tmp_path / "empty.pem").write_text("nothing")
    error = await refused(of_slapd(slapd, uris=(slapd.tls_uri,), ca_cert=tmp_path / "empty.pem"))
    assert "source.ca_cert" in error.message


# -- which server --------------------------------------------------------------------------------------------


async def test_the_first_server_that_can_be_reached_is_used(slapd: Slapd) -> None:
    nobody = f"ldap://127.0.0.1:{free_port()}"
    settings = of_slapd(slapd, uris=(nobody, slapd.uri, f"ldap://127.0.0.1:{free_port()}"))
    assert len((await read(settings)).users) == 11
    found = await LdapSource(settings).describe()
    assert found.uri == slapd.uri
    (passed,) = found.passed_over
    assert nobody in passed
    assert "refused" in passed


async def test_a_server_that_refuses_us_is_not_passed_over(slapd: Slapd, new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(1))
    error = await refused(of_slapd(slapd, uris=(slapd.uri, stand_in.uri), bind_password="not-it"))
    assert "wrong name or password" in error.message
    assert stand_in.connections == 0


@pytest.mark.parametrize("code", [51, 52])
async def test_a_server_that_is_busy_is_passed_over(new_stand_in: NewStandIn, code: int) -> None:
    busy = new_stand_in(organisation(1), Manners(bind_result=(code, "later")))
    other = new_stand_in(organisation(3))
    assert len((await read(of_stand_in(busy.uri, other.uri))).users) == 3


async def test_all_servers_are_named_when_none_can_be_reached() -> None:
    uris = tuple(f"ldap://127.0.0.1:{free_port()}" for _ in range(3))
    error = await refused(LdapSettings(uris=uris, base=SUFFIX))
    assert isinstance(error, SourceUnavailable)
    assert error.message.startswith("none of 3 LDAP servers can be used")
    assert all(uri in error.message for uri in uris)


async def test_an_unknown_host_is_said() -> None:
    error = await refused(LdapSettings(uris=("ldap://no-such-host.invalid",), base=SUFFIX))
    assert isinstance(error, SourceUnavailable)
    assert "no-such-host.invalid is unknown" in error.message


@pytest.mark.parametrize("uri", ["ldap://a:b:c:d", "ldap://host:99999999", "ldap://host:port"])
async def test_what_is_no_uri_is_said(uri: str) -> None:
    assert "source.uri" in (await refused(LdapSettings(uris=(uri,), base=SUFFIX))).remedy


async def test_a_server_that_never_answers_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for scheme in ("ldap", "ldaps"):
        settings = LdapSettings(uris=(f"{scheme}://127.0.0.1:{port}",), base=SUFFIX, connect_timeout=1)
        error = await refused(settings)
        assert isinstance(error, SourceUnavailable)
        assert "answer" in error.message
    server.close()
    await server.wait_closed()


# -- base and rights -----------------------------------------------------------------------------------------


async def test_a_base_that_does_not_exist_is_an_error_with_the_nearest_that_does(slapd: Slapd) -> None:
    error = await refused(of_slapd(slapd, base=f"ou=gone,{PEOPLE}"))
    assert isinstance(error, SourceInvalid)
    assert f"ou=gone,{PEOPLE} does not exist" in error.message
    assert f"the nearest that is there is {PEOPLE}" in error.message


async def test_a_base_that_is_no_dn_is_an_error(slapd: Slapd) -> None:
    assert "source.base" in (await refused(of_slapd(slapd, base="people"))).remedy


@pytest.mark.parametrize("who", [SEARCHER, OUTSIDER])
async def test_an_account_that_sees_nothing_is_an_error_and_no_empty_directory(
    slapd: Slapd, who: str
) -> None:
    error = await refused(of_slapd(slapd, bind_dn=who))
    assert isinstance(error, SourceInvalid)
    assert "account" in error.remedy


async def test_a_filter_that_lets_nothing_through_is_an_error(slapd: Slapd) -> None:
    error = await refused(of_slapd(slapd, filter="(uid=nobody-at-all)"))
    assert "source.filter lets through" in error.message


@pytest.mark.parametrize("wrong", ["(uid=a", "(&)", "uid", "(uid=a)(uid=b)"])
async def test_a_filter_that_is_none_is_an_error(slapd: Slapd, wrong: str) -> None:
    assert "source.filter" in (await refused(of_slapd(slapd, filter=wrong))).message


# -- what aim check is told ----------------------------------------------------------------------------------


async def test_openldap_is_described(slapd: Slapd) -> None:
    found = await LdapSource(of_slapd(slapd)).describe()
    assert found.error is None
    assert (found.uri, found.address, found.vendor) == (slapd.uri, "127.0.0.1", "OpenLDAP")
    assert found.bound_as == READER
    assert found.users == 14
    assert found.containers == {GroupKind.DOMAIN: 1, GroupKind.OU: 6, GroupKind.GROUP: 7}
    assert found.empty == {
        "uid: uid or samaccountname": 1,
        "name: displayname or cn or name": 0,
        "mail: mail": 5,
        "id: a stable one": 0,
    }
    assert found.method == "syncrepl"
    ((cause, _),) = found.warnings
    assert "unencrypted" in cause


async def test_active_directory_is_described(samba: Samba) -> None:
    found = await LdapSource(of_samba(samba)).describe()
    assert found.error is None
    assert found.vendor == "Active Directory"
    assert "CN=NTDS Settings" in found.host
    assert found.bound_as == r"ELEMENT\reader"
    assert (found.users, found.containers[GroupKind.GROUP]) == (8, 6)
    assert found.method == "uSNChanged"


async def test_a_global_catalogue_is_warned_of(samba: Samba) -> None:
    found = await LdapSource(of_samba(samba, uris=(f"{samba.uri}:3268",))).describe()
    assert any("global catalogue" in cause for cause, _ in found.warnings)


async def test_a_description_reaches_as_far_as_things_go_well(slapd: Slapd) -> None:
    found = await LdapSource(of_slapd(slapd, base=f"ou=gone,{SUFFIX}")).describe()
    assert found.bound_as == READER
    assert isinstance(found.error, SourceInvalid)
    assert found.method == ""
    assert (await LdapSource(of_slapd(slapd, bind_password="wrong")).describe()).uri == ""


# -- beside other work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
async def test_cancelling_ends_a_read_at_once(new_stand_in: NewStandIn, tls: bool) -> None:
    stand_in = new_stand_in(organisation(50))
    hold = stand_in.hold(after=10)
    uri = stand_in.tls_uri if tls else stand_in.uri
    source = LdapSource(of_stand_in(uri, ca_cert=stand_in.ca, read_timeout=120))
    reading = asyncio.create_task(source.read(Roster()))
    await asyncio.to_thread(hold.reached.wait, 10)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, 2)
    await asyncio.to_thread(wait_until_nobody_reads)
    hold.release()
    assert len((await source.read(Roster())).users) == 50


def wait_until_nobody_reads() -> None:
    """No longer than the tests' time limit."""
    while any(is_in_bridge(frame) for frame in sys._current_frames().values()):
        time.sleep(0.01)


def is_in_bridge(frame: FrameType | None) -> bool:
    """Whether that thread is within our bridge."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("aim.bridges.ldap"):
            return True
        frame = frame.f_back
    return False


async def test_collecting_garbage_goes_on_after_a_read_whatever_came_of_it(slapd: Slapd) -> None:
    before = gc.isenabled(), sys.getswitchinterval()
    await read(of_slapd(slapd))
    await refused(of_slapd(slapd, base=f"ou=gone,{SUFFIX}"))
    await asyncio.gather(read(of_slapd(slapd)), refused(of_slapd(slapd, filter="(uid=x)")))
    assert (gc.isenabled(), sys.getswitchinterval()) == before


async def test_nobody_is_left_in_the_roster_by_a_read_that_fails(slapd: Slapd) -> None:
    roster = Roster()
    with pytest.raises(SourceInvalid):
        await LdapSource(of_slapd(slapd, base=f"ou=gone,{SUFFIX}")).read(roster)
    assert len(roster) == 0


async def test_a_server_that_comes_back_is_read_again(new_samba: NewSamba) -> None:
    samba = new_samba()
    source = LdapSource(of_samba(samba, connect_timeout=3))
    samba.stop()
    with pytest.raises(SourceUnavailable, match="no connection"):
        await source.read(Roster())
    samba.start()
    assert len((await source.read(Roster())).users) == 8
