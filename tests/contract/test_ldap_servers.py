"""The LDAP servers that the tests stand on: two real ones and one that misbehaves."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ldap3 import EXTERNAL, NONE, SASL, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException, LDAPSocketOpenError
from ldap3.protocol.microsoft import dir_sync_control
from ldap3.protocol.rfc2696 import RealSearchControlValue
from ldap3.protocol.rfc4511 import LDAPMessage
from pyasn1.codec.ber import decoder
from pyasn1.error import PyAsn1Error

from bench.directory_ldif import size_of, write
from bench.shape import make_shape
from tests.servers import ldap_messages as ldap
from tests.servers import samba as active_directory
from tests.servers import slapd as openldap
from tests.servers.answers import (
    cut,
    cut_after,
    disconnect,
    fail,
    mention,
    refer,
    renumber,
    send,
    slip_in,
    trickle,
    unpaged,
)
from tests.servers.certificates import Certificate, Certificates
from tests.servers.editing import Editor, Refused
from tests.servers.hostile import PEOPLE, READER, Manners, NewStandIn, StandIn, group, organisation
from tests.servers.malformed import MALFORMED, UNUSUAL
from tests.servers.process import ServerFailed, accepts
from tests.servers.samba import EMPLOYEES, NewSamba, Samba
from tests.servers.slapd import NewSlapd, Settings, Slapd

PASSWORD = "password"
SUFFIX = openldap.SUFFIX
STAFF = f"cn=staff,ou=groups,{SUFFIX}"
ADA = f"uid=ada,ou=people,{SUFFIX}"


def trusting(ca: Path, **more: Any) -> Tls:
    # Since Python 3.12, ldap3 finds no IP address in a certificate; all our servers' have this name as well.
    return Tls(ca_certs_file=str(ca), validate=ssl.CERT_REQUIRED, valid_names=["localhost"], **more)


@contextmanager
def connected(
    uri: str, user: str | None = None, ca: Path | None = None, *, start_tls: bool = False, **more: Any
) -> Iterator[Connection]:
    """A connection of ldap3's, bound if the server wants it."""
    tls = trusting(ca) if ca else None
    server = Server(uri, get_info=NONE, connect_timeout=10, tls=tls)
    password = PASSWORD if user else None
    connection = Connection(
        server, user=user, password=password, auto_referrals=False, receive_timeout=10, **more
    )
    try:
        if start_tls:
            connection.open()
            connection.start_tls()
        connection.bind()
        yield connection
    finally:
        used = connection.socket
        connection.unbind()
        # ldap3 forgets a socket that is broken, and leaves it open.
        if used:
            used.close()


def search(connection: Connection, base: str, query: str = "(objectClass=*)", **more: Any) -> tuple[str, int]:
    """The result, and how many entries there were."""
    connection.search(base, query, **more)
    entries = [entry for entry in connection.response or () if entry["type"] == "searchResEntry"]
    return connection.result["description"], len(entries)


def cookie_of(connection: Connection) -> bytes:
    return bytes(connection.result["controls"][ldap.PAGED_RESULTS]["value"]["cookie"])


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def port_of(uri: str) -> tuple[str, int]:
    server = Server(uri)
    return server.host, server.port


# Both real ones


def as_reader(server: Editor) -> tuple[str, str]:
    """An ordinary account, and the base of the standard directory."""
    if isinstance(server, Samba):
        return active_directory.READER, EMPLOYEES
    return openldap.READER, SUFFIX


@pytest.fixture(params=["slapd", "samba"])
def shared(request: pytest.FixtureRequest) -> Any:
    """Each real server; only the one that is asked for is started."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["new_slapd", "new_samba"])
def own(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)()


def test_an_ordinary_account_reads_the_standard_directory(shared: Slapd | Samba) -> None:
    reader, base = as_reader(shared)
    with connected(shared.uri, reader) as connection:
        assert search(connection, base) == ("success", 28 if isinstance(shared, Slapd) else 21)
        assert search(connection, f"cn=absent,{base}") == ("noSuchObject", 0)


@pytest.mark.parametrize("start_tls", [True, False])
def test_tls_with_a_good_certificate(shared: Slapd | Samba, start_tls: bool) -> None:
    reader, base = as_reader(shared)
    uri = shared.uri if start_tls else shared.tls_uri
    with connected(uri, reader, shared.ca, start_tls=start_tls) as connection:
        assert search(connection, base)[0] == "success"
        assert connection.socket.cipher()


def test_tls_with_another_authority(shared: Slapd | Samba, other_certificates: Certificates) -> None:
    with (
        pytest.raises(LDAPSocketOpenError, match="certificate verify failed"),
        connected(shared.tls_uri, "", other_certificates.ca),
    ):
        pass


def test_a_stopped_server_is_gone_and_comes_back_with_its_entries(own: Slapd | Samba) -> None:
    _, base = as_reader(own)
    before = own.find(base)
    unit = own.add(f"ou=new,{base}", {"objectClass": "organizationalUnit"})
    pid, address = own.pid, port_of(own.uri)
    assert pid is not None

    own.stop()
    assert is_gone(pid)
    assert not accepts(*address)
    own.start()

    assert port_of(own.uri) == address
    assert {dn.lower() for dn in own.find(base)} - {dn.lower() for dn in before} == {unit.lower()}
    pid = own.pid
    assert pid is not None
    own.kill()
    assert is_gone(pid)
    own.start()
    assert len(own.find(base)) == len(before) + 1


def test_editing(own: Slapd | Samba) -> None:
    _, base = as_reader(own)
    unit = own.add(f"ou=new,{base}", {"objectClass": "organizationalUnit"})
    inner = own.add(f"ou=inner,{unit}", {"objectClass": "organizationalUnit", "description": ["one", "two"]})
    own.remove_values(inner, "description", "one")
    own.add_values(inner, "description", "three")
    assert sorted(own.get(inner, "description")["description"]) == [b"three", b"two"]
    own.set(inner, "description", "four")
    assert own.get(inner, "description") == {"description": [b"four"]}
    own.set(inner, "description")
    assert own.get(inner, "description") == {}
    with pytest.raises(Refused, match="delete ou=new"):
        own.delete(unit)

    renamed = own.rename(unit, "ou=newer")
    assert {dn.lower() for dn in own.find(renamed)} == {renamed.lower(), f"ou=inner,{renamed}".lower()}
    moved = own.rename(f"ou=inner,{renamed}", "ou=inner", base)
    own.delete(renamed)
    assert own.find(moved) != []


_PARENT = """
import sys
from pathlib import Path
from tests.servers.certificates import Certificates
from tests.servers.slapd import Slapd
place = Path(sys.argv[1])
server = Slapd(place, Certificates(place / "certificates"))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_a_server_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout
        # A descriptor and not the number: it becomes readable when that very process has ended.
        descriptor = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            assert select.select([descriptor], [], [], 20.0)[0]
        finally:
            os.close(descriptor)


# slapd


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        (openldap.SEARCHER, ("success", 0)),
        (openldap.OUTSIDER, ("noSuchObject", 0)),
        (ADA, ("success", 1)),
        (None, ("success", 28)),
    ],
)
def test_who_sees_what(slapd: Slapd, who: str | None, seen: tuple[str, int]) -> None:
    with connected(slapd.uri, who) as connection:
        assert search(connection, SUFFIX) == seen


@pytest.mark.parametrize(
    ("settings", "result"),
    [
        (Settings(plain_limit=5), ("success", 10)),
        (Settings(paged_limit=9), ("sizeLimitExceeded", 9)),
        (Settings(page_limit=9), ("adminLimitExceeded", 0)),
        (Settings(anonymous="sees nothing"), ("success", 10)),
        (Settings(access=(f'to dn.subtree="ou=groups,{SUFFIX}" by * none',)), ("success", 10)),
        (Settings(syncrepl=False), ("success", 10)),
        (Settings(ldif=None), ("noSuchObject", 0)),
    ],
)
def test_limits_for_pages(new_slapd: NewSlapd, settings: Settings, result: tuple[str, int]) -> None:
    with connected(new_slapd(settings).uri, openldap.READER) as connection:
        assert search(connection, SUFFIX, paged_size=10) == result


@pytest.mark.parametrize(
    ("settings", "result"),
    [
        (Settings(plain_limit=5), ("sizeLimitExceeded", 5)),
        (Settings(anonymous="sees nothing"), ("success", 0)),
        (Settings(anonymous="is refused"), ("unwillingToPerform", 0)),
        (Settings(tls_only=True), ("confidentialityRequired", 0)),
        (Settings(access=(f'to dn.subtree="ou=groups,{SUFFIX}" by * none',)), ("success", 20)),
    ],
)
def test_limits_without_an_account(new_slapd: NewSlapd, settings: Settings, result: tuple[str, int]) -> None:
    with connected(new_slapd(settings).uri) as connection:
        assert search(connection, SUFFIX) == result


def test_a_client_certificate_is_an_account(new_slapd: NewSlapd, certificates: Certificates) -> None:
    slapd = new_slapd(Settings(clients_with_certificate_only=True))
    client = certificates.client("reader", passphrase="open sesame")
    tls = trusting(
        slapd.ca,
        local_certificate_file=str(client.cert),
        local_private_key_file=str(client.key),
        local_private_key_password="open sesame",
    )
    server = Server(slapd.tls_uri, get_info=NONE, tls=tls)
    connection = Connection(server, authentication=SASL, sasl_mechanism=EXTERNAL, sasl_credentials="")
    try:
        assert connection.bind()
        assert connection.extend.standard.who_am_i() == f"dn:{openldap.READER}"
    finally:
        connection.unbind()


def test_a_server_without_plain_ldap_can_be_edited(new_slapd: NewSlapd) -> None:
    slapd = new_slapd(Settings(tls_only=True))
    slapd.set(ADA, "mail", "a@example.com")
    assert slapd.get(ADA, "mail") == {"mail": [b"a@example.com"]}


def test_a_lock_can_be_seen_and_set(new_slapd: NewSlapd) -> None:
    slapd = new_slapd()
    locked = {"pwdAccountLockedTime": [b"000001010000Z"]}
    assert slapd.get(f"uid=ida,ou=sales,ou=people,{SUFFIX}", "pwdAccountLockedTime") == locked
    slapd.set(ADA, "pwdAccountLockedTime", "000001010000Z")
    assert slapd.get(ADA, "pwdAccountLockedTime") == locked


def test_values_are_kept_as_they_were_given(slapd: Slapd) -> None:
    assert b"UID=Ada, OU=People, DC=example, DC=com" in slapd.get(STAFF)["member"]


def test_more_can_be_loaded(new_slapd: NewSlapd, tmp_path: Path) -> None:
    slapd = new_slapd()
    ldif = tmp_path / "more.ldif"
    ldif.write_text(f"dn: ou=more,{SUFFIX}\nobjectClass: organizationalUnit\nou: more\n")
    slapd.stop()
    slapd.load(ldif)
    slapd.start()
    assert slapd.find(f"ou=more,{SUFFIX}") == [f"ou=more,{SUFFIX}"]
    slapd.stop()
    with pytest.raises(ServerFailed, match="more"):
        slapd.load(ldif)


def test_a_generated_organisation_can_be_loaded(new_slapd: NewSlapd, tmp_path: Path) -> None:
    ldif = tmp_path / "organisation.ldif"
    with ldif.open("w") as file:
        written = write(make_shape(size_of(1000)), file)
    slapd = new_slapd(Settings(ldif=ldif))
    assert len(slapd.find(SUFFIX)) == written.entries
    assert len(slapd.find(SUFFIX, "(objectClass=inetOrgPerson)")) == written.users == 1000
    groups = slapd.find(SUFFIX, "(objectClass=groupOfNames)")
    assert len(groups) == written.groups == 50
    members = [value for dn in groups for value in slapd.get(dn, "member")["member"] if value]
    assert len(members) == written.memberships > 3000


def test_a_server_that_does_not_start_says_why(new_slapd: NewSlapd, certificates: Certificates) -> None:
    ca = certificates.ca
    with pytest.raises(ServerFailed, match="slapd ended while it started"):
        new_slapd(Settings(certificate=Certificate(cert=ca, key=ca, both=ca)))


# Samba


@pytest.mark.parametrize(
    "name", [active_directory.READER, "reader@element.test", f"cn=reader,cn=Users,{active_directory.BASE}"]
)
def test_an_account_has_three_names(samba: Samba, name: str) -> None:
    with connected(samba.uri, name) as connection:
        assert connection.bound
        assert search(connection, EMPLOYEES, "(objectClass=user)")[0] == "success"


def test_nobody_reads_without_an_account(samba: Samba) -> None:
    with connected(samba.uri) as connection:
        assert search(connection, EMPLOYEES) == ("operationsError", 0)


def test_a_domain_has_what_only_a_domain_has(samba: Samba) -> None:
    finn = samba.get(f"CN=Finn Fürst,OU=backend,OU=engineering,{EMPLOYEES}", "*")
    team = samba.get(f"CN=engineering,{EMPLOYEES}", "member", "objectSid")
    assert len(finn["objectGUID"][0]) == 16
    # The primary group does not list him.
    assert int.from_bytes(team["objectSid"][0][-4:], "little") == int(finn["primaryGroupID"][0])
    assert not any(b"Finn" in member for member in team["member"])
    ida = samba.get(f"CN=Ida Ivers,OU=sales,{EMPLOYEES}", "userAccountControl")
    assert int(ida["userAccountControl"][0]) & active_directory.DISABLED
    assert len(samba.find(EMPLOYEES, "(objectClass=user)")) == 9
    assert len(samba.find(EMPLOYEES, "(&(objectClass=user)(!(objectClass=computer)))")) == 8
    assert samba.find(EMPLOYEES, "(objectClass=contact)") == [f"CN=Supplier,OU=sales,{EMPLOYEES}"]


def test_two_domain_controllers_at_once(samba: Samba, new_samba: NewSamba) -> None:
    other = new_samba()
    other.add_user("only.there")
    assert other.uri != samba.uri
    assert other.find(EMPLOYEES, "(sAMAccountName=only.there)") != []
    assert samba.find(EMPLOYEES, "(sAMAccountName=only.there)") == []


def test_people_can_be_disabled_and_hidden(new_samba: NewSamba) -> None:
    samba = new_samba()
    ada = f"CN=Ada Abel,{EMPLOYEES}"
    disabled = "(userAccountControl:1.2.840.113556.1.4.803:=2)"
    samba.disable(ada)
    assert len(samba.find(EMPLOYEES, disabled)) == 2
    samba.disable(ada, False)
    assert len(samba.find(EMPLOYEES, disabled)) == 1

    samba.deny(f"OU=sales,{EMPLOYEES}", f"CN=reader,CN=Users,{active_directory.BASE}", "LC")
    with connected(samba.uri, active_directory.READER) as connection:
        assert search(connection, EMPLOYEES) == ("success", 17)
    assert len(samba.find(EMPLOYEES)) == 21


@pytest.mark.parametrize(
    ("base", "object_security", "result"),
    [
        (active_directory.BASE, True, "success"),
        (active_directory.BASE, False, "insufficientAccessRights"),
        (EMPLOYEES, True, "unwillingToPerform"),
        (EMPLOYEES, False, "insufficientAccessRights"),
    ],
)
def test_what_an_ordinary_account_is_told_of_changes(
    samba: Samba, base: str, object_security: bool, result: str
) -> None:
    control = dir_sync_control(True, object_security, False, False, True, 2**20, b"")
    with connected(samba.uri, active_directory.READER) as connection:
        assert search(connection, base, "(objectClass=user)", controls=[control])[0] == result


# The stand-in


def people(connection: Connection, **more: Any) -> tuple[str, int]:
    return search(connection, PEOPLE, "(objectClass=user)", attributes=["cn"], **more)


def test_a_page_has_its_limit(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(25), Manners(max_page_size=10))
    with connected(stand_in.uri, READER) as connection:
        assert people(connection) == ("sizeLimitExceeded", 10)
        assert people(connection, paged_size=20) == ("success", 10)
        assert people(connection, paged_size=20, paged_cookie=cookie_of(connection)) == ("success", 10)
        assert people(connection, paged_size=20, paged_cookie=cookie_of(connection)) == ("success", 5)
        assert cookie_of(connection) == b""
    assert [search.page_size for search in stand_in.searches] == [None, 20, 20, 20]
    assert stand_in.connections == 1


def test_many_values_come_in_ranges(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(25), Manners(max_values=10))
    everyone = f"CN=everyone,{PEOPLE}"

    def values(connection: Connection, *attributes: str) -> dict[str, int]:
        connection.search(everyone, "(objectClass=group)", attributes=attributes)
        found = connection.response[0]["raw_attributes"] if connection.response else {}
        return {name: len(values or ()) for name, values in found.items()}

    with connected(stand_in.uri, READER, return_empty_attributes=False, auto_range=False) as connection:
        assert values(connection, "member") == {"member": 0, "member;range=0-9": 10}
        assert values(connection, "member;range=10-*") == {"member;range=10-19": 10}
        assert values(connection, "Member;Range=20-24") == {"member;range=20-*": 5}
        assert values(connection, "cn", "member;range=2-3") == {"cn": 1, "member;range=2-3": 2}
        assert values(connection, "member;range=25-*") == {}
        assert connection.result["description"] == "operationsError"
    with connected(stand_in.uri, READER) as connection:
        connection.search(everyone, "(objectClass=group)", attributes=["member"])
        assert len(connection.response[0]["attributes"]["member"]) == 25


@pytest.mark.parametrize(
    ("change", "result"),
    [
        (fail(ldap.ADMIN_LIMIT_EXCEEDED, after=3), ("adminLimitExceeded", 3)),
        (fail(ldap.TIME_LIMIT_EXCEEDED, "too slow"), ("timeLimitExceeded", 0)),
        (fail(ldap.BUSY, after=99), ("busy", 10)),
        (refer("ldap://127.0.0.1:9/DC=elsewhere", after=1), ("referral", 1)),
        (mention("ldap://127.0.0.1:9/DC=elsewhere"), ("success", 10)),
        (trickle(7), ("success", 10)),
        (slip_in(UNUSUAL["an entry with no attributes"], after=2), ("success", 11)),
    ],
)
def test_answers_can_be_changed(new_stand_in: NewStandIn, change: Any, result: tuple[str, int]) -> None:
    stand_in = new_stand_in(organisation(30))
    stand_in.on_search(change, page=2)
    with connected(stand_in.uri, READER) as connection:
        assert people(connection, paged_size=10) == ("success", 10)
        assert people(connection, paged_size=10, paged_cookie=cookie_of(connection)) == result
        stand_in.behave()
        assert people(connection) == ("success", 30)


@pytest.mark.parametrize(
    "change",
    [
        cut(after=3),
        cut(after=3, reset=True),
        cut_after(100),
        renumber(4711, after=3),
        disconnect(after=3),
        send(MALFORMED["less than its length"], after=3),
    ],
)
def test_connections_can_be_ruined(new_stand_in: NewStandIn, change: Any) -> None:
    stand_in = new_stand_in(organisation(10))
    stand_in.on_search(change, times=1)
    with connected(stand_in.uri, READER) as connection:
        connection.receive_timeout = 1
        with pytest.raises(LDAPException):
            people(connection)
    with connected(stand_in.uri, READER) as connection:
        assert people(connection) == ("success", 10)


def test_an_answer_can_be_held(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(10))
    hold = stand_in.hold(after=4)
    with connected(stand_in.uri, READER) as connection, ThreadPoolExecutor() as pool:
        running = pool.submit(people, connection)
        assert hold.reached.wait(10)
        assert not running.done()
        hold.release()
        assert running.result() == ("success", 10)


def test_pages_without_entries_and_without_an_end(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(4), Manners(empty_pages=1, endless=True))
    pages = []
    cookie = None
    with connected(stand_in.uri, READER) as connection:
        for _ in range(8):
            pages.append(people(connection, paged_size=2, paged_cookie=cookie)[1])
            cookie = cookie_of(connection)
            assert cookie
        stand_in.on_search(unpaged)
        people(connection, paged_size=2)
        assert "controls" not in connection.result
    assert pages == [0, 2, 0, 2, 0, 2, 0, 2]


def test_who_may_what_on_the_stand_in(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(3))
    with connected(stand_in.uri, "CN=nobody") as connection:
        assert connection.result["description"] == "invalidCredentials"
        assert people(connection) == ("operationsError", 0)
        assert search(connection, "", search_scope="BASE", attributes=["namingContexts"]) == ("success", 1)
    stand_in.manners.anonymous = True
    with connected(stand_in.uri) as connection:
        assert people(connection) == ("success", 3)
        assert search(connection, "DC=elsewhere") == ("noSuchObject", 0)
        unknown = ("1.2.3.4", True, None)
        assert people(connection, controls=[unknown]) == ("unavailableCriticalExtension", 0)
    stand_in.manners.bind_result = (ldap.STRONGER_AUTH_REQUIRED, "sign!")
    with connected(stand_in.uri, READER) as connection:
        assert connection.result["message"] == "sign!"
    assert {search.dereference for search in stand_in.searches} == {3}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("(&(objectClass=user)(cn=USER1))", 1),
        ("(|(cn=user1)(cn=user2))", 2),
        ("(!(cn=user1))", 13),
        ("(cn=*ser1*)", 3),
        ("(cn=u*r*1)", 2),
        ("(cn=*9)", 1),
        ("(mail=*)", 12),
        ("(userAccountControl>=513)", 0),
        ("(userAccountControl<=512)", 12),
        ("(userAccountControl:1.2.840.113556.1.4.803:=512)", 12),
        ("(userAccountControl:1.2.840.113556.1.4.803:=2)", 0),
        ("(memberOf:1.2.840.113556.1.4.1941:=CN=everyone)", 0),
    ],
)
def test_filters(new_stand_in: NewStandIn, query: str, count: int) -> None:
    stand_in = new_stand_in(organisation(12))
    with connected(stand_in.uri, READER) as connection:
        assert search(connection, PEOPLE, query) == ("success", count)
        assert search(connection, PEOPLE, "(ou=*)", search_scope="LEVEL") == ("success", 0)
        assert search(connection, PEOPLE, "(ou=*)", search_scope="BASE") == ("success", 1)


def test_tls_of_the_stand_in(new_stand_in: NewStandIn, certificates: Certificates) -> None:
    stand_in = new_stand_in(organisation(3))
    with connected(stand_in.tls_uri, READER, stand_in.ca) as connection:
        assert people(connection) == ("success", 3)
    with connected(stand_in.uri, READER, stand_in.ca, start_tls=True) as connection:
        assert people(connection) == ("success", 3)
    expired = new_stand_in(organisation(3), None, certificates.expired("localhost"))
    with pytest.raises(LDAPSocketOpenError, match="expired"), connected(expired.tls_uri, "", expired.ca):
        pass
    stand_in.manners.start_tls_result = ldap.UNAVAILABLE
    with (
        pytest.raises(LDAPException),
        connected(stand_in.uri, READER, stand_in.ca, start_tls=True),
    ):
        pass


def exchange(stand_in: StandIn, *messages: bytes) -> bytes:
    """All that the server answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", stand_in.port), timeout=10) as connection:
        for message in messages:
            connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


_BIND = bytes.fromhex("300c020101600702010304008000")
_UNBIND = bytes.fromhex("30050201024200")


@pytest.mark.parametrize(
    ("data", "violation"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a message that starts with 0x47"),
        (_BIND[:-1], "the connection ended within a message"),
        (bytes.fromhex("3080 020101 4200 0000"), "an indefinite length"),
        (bytes.fromhex("3084ffffffff"), "a message of"),
        (bytes.fromhex("300602010142 0100"), "an operation with the tag 0x42"),
        (bytes.fromhex("3005020100 4200"), "message id 0"),
        (bytes.fromhex("300c020101600702010204008000"), "LDAP version 2"),
        (bytes.fromhex("300d02010160080201030400040100"), "tag 0x04 where 0xa3 is due"),
        (bytes.fromhex("300c0201016007020103040180"), "the connection ended within a message"),
        (bytes.fromhex("30080201017e030401 78"), "an operation with the tag 0x7e"),
    ],
)
def test_a_malformed_request_is_a_violation(new_stand_in: NewStandIn, data: bytes, violation: str) -> None:
    stand_in = new_stand_in(organisation(1))
    answer = exchange(stand_in, data)
    assert ldap.NOTICE_OF_DISCONNECTION.encode() in answer
    assert re.search(violation, stand_in.violations.pop())


def test_a_good_request_is_none(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(1))
    assert exchange(stand_in, _BIND, _UNBIND) == bytes.fromhex("300c02010161070a010004000400")


def test_what_else_is_a_violation(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(5))
    with connected(stand_in.uri, READER) as connection:
        connection.delete(f"CN=user1,{PEOPLE}")
        assert connection.result["description"] == "unwillingToPerform"
        assert people(connection, paged_size=2, paged_cookie=b"made up") == ("unwillingToPerform", 0)
        people(connection, paged_size=2)
        other = search(connection, PEOPLE, "(cn=*)", paged_size=2, paged_cookie=cookie_of(connection))
        assert other == ("unwillingToPerform", 0)
    cookie = "a cookie that was not given, or with another search"
    assert stand_in.violations == ["a write: delete", cookie, cookie]
    stand_in.violations.clear()


# What pyasn1 lets pass, which knows BER and the grammar.
_MORE_THAN_GRAMMAR = {
    "an indefinite length": "BER has it, LDAP does not",
    "a value that is constructed": "BER has it, LDAP does not",
    "a message id without bytes": "taken for 0",
    "a message id of nine bytes": "taken for the number without its zeros",
    "a result without bytes": "taken for 0",
    "a reference to nowhere": "has one URI at least",
    "a DN that is not UTF-8": "is text for those who read it",
    "an attribute's name that is not UTF-8": "is text for those who read it",
    "a message id of nobody": "is of no search",
    "an operation of clients": "is no answer",
    "a response to a bind": "is no answer to a search",
}


def decoded(data: bytes) -> None:
    """Raises PyAsn1Error if `data` is not one message of LDAP's or more."""
    while data:
        message, data = decoder.decode(data, asn1Spec=LDAPMessage())
        for control in message["controls"]:
            if str(control["controlType"]) == ldap.PAGED_RESULTS:
                decoded_exactly(bytes(control["controlValue"]), RealSearchControlValue())


def decoded_exactly(data: bytes, grammar: Any) -> None:
    _, rest = decoder.decode(data, asn1Spec=grammar)
    if rest:
        raise PyAsn1Error(f"{len(rest)} bytes are left")


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_ldap(name: str) -> None:
    decoded(UNUSUAL[name](7))


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_not(name: str) -> None:
    if name in _MORE_THAN_GRAMMAR:
        decoded(MALFORMED[name](7))
        return
    with pytest.raises(PyAsn1Error):
        decoded(MALFORMED[name](7))


def test_groups_need_no_members() -> None:
    assert "member" not in group("nobody", []).attributes
