"""A real Active Directory for tests: a Samba domain controller, of which only the LDAP server runs.

`samba` is shared and only for reading; `new_samba` makes one of one's own (1 s). Both hold the domain
ELEMENT.TEST with the small organisation of `_standard`, so that the example configuration of an LDAP
source fits but for the host name:

    samba = new_samba()
    ada = samba.add_user("ada", "ou=employees,dc=element,dc=test", mail="ada@example.com")
    samba.add_group("staff", "ou=employees,dc=element,dc=test", members=[ada])

The ports are fixed (389, 636, 3268, 3269) and need root; each server has a loopback address of its own, so
that many can run at once. To make a domain takes 6 s; it is made once and kept in pytest's cache, and copied
for each server.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.servers.certificates import Certificate, Certificates
from tests.servers.editing import Editor, Values
from tests.servers.process import Running, ServerFailed, ServerProcess, can_listen

REALM, DOMAIN, HOST_NAME = "ELEMENT.TEST", "ELEMENT", "dc1"
BASE = "DC=element,DC=test"
EMPLOYEES = f"OU=employees,{BASE}"
ADMIN, ADMIN_PASSWORD = rf"{DOMAIN}\administrator", "donkey.8"
READER, PASSWORD = rf"{DOMAIN}\reader", "password"
"""An ordinary account, with no right that not everybody in the domain has."""

NORMAL, DISABLED, NO_PASSWORD_NEEDED, WORKSTATION = 0x200, 0x2, 0x20, 0x1000
"""Bits of userAccountControl (MS-ADTS, section 2.2.16)."""
GLOBAL_GROUP, SECURITY_GROUP = 0x2, -0x80000000
"""Bits of groupType (MS-ADTS, section 2.2.12)."""

# Sockets, which can't be copied, and pids.
_LEFT_BY_A_RUN = shutil.ignore_patterns("ldapi", "msg.*", "run")


class Samba(Running, Editor):
    """One domain controller below `directory`, a copy of the domain in `template`.

    Keeps its entries and its address.
    """

    def __init__(
        self,
        directory: Path,
        template: Path,
        certificates: Certificates,
        certificate: Certificate | None = None,
    ) -> None:
        self.directory = directory / "dc"
        self.address = _free_address()
        self.ca = certificates.ca
        """What clients are to trust."""
        self.log = directory / "samba.log"
        self._certificate = certificate or certificates.server(
            self.address, "localhost", f"{HOST_NAME}.{REALM.lower()}"
        )
        # With modes: Samba refuses to start if its private directory is open to others.
        shutil.copytree(template, self.directory, ignore=_LEFT_BY_A_RUN)
        self._config = _write_config(self.directory, self.address, self._certificate, self.ca)
        self._process = ServerProcess(["samba", "-i", "-M", "single", "-s", self._config], self.log)

    @property
    def uri(self) -> str:
        """For plain LDAP and StartTLS."""
        return f"ldap://{self.address}"

    @property
    def tls_uri(self) -> str:
        return f"ldaps://{self.address}"

    @property
    def edited_by(self) -> str:
        # Passwords are taken by TLS only.
        return self.tls_uri

    @property
    def admin_dn(self) -> str:
        return ADMIN

    @property
    def admin_password(self) -> str:
        return ADMIN_PASSWORD

    @property
    def _addresses(self) -> Sequence[tuple[str, int]]:
        return [(self.address, port) for port in (389, 636)]

    def add_ou(self, name: str, parent: str = BASE) -> str:
        """A new organisational unit. Gives its DN, as do the other methods that add something."""
        return self.add(f"OU={name},{parent}", {"objectClass": "organizationalUnit"})

    def add_user(
        self,
        name: str,
        parent: str = EMPLOYEES,
        *,
        cn: str | None = None,
        disabled: bool = False,
        password: str | None = None,
        **attributes: Values,
    ) -> str:
        """An account with the sAMAccountName `name`; without a `password` nobody can log in."""
        if password is not None:
            attributes["unicodePwd"] = f'"{password}"'.encode("utf-16-le")
        control = NORMAL | NO_PASSWORD_NEEDED | (DISABLED if disabled else 0)
        fixed: dict[str, Values] = {
            "objectClass": "user",
            "sAMAccountName": name,
            "userAccountControl": str(control),
        }
        return self.add(f"CN={cn or name},{parent}", fixed | attributes)

    def add_group(
        self, name: str, parent: str = EMPLOYEES, *, members: Sequence[str] = (), **attributes: Values
    ) -> str:
        """A global security group; `members` are DNs, of groups too."""
        fixed: dict[str, Values] = {
            "objectClass": "group",
            "sAMAccountName": name,
            "groupType": str(GLOBAL_GROUP | SECURITY_GROUP),
        }
        if members:
            fixed["member"] = members
        return self.add(f"CN={name},{parent}", fixed | attributes)

    def add_computer(self, name: str, parent: str = EMPLOYEES) -> str:
        """A machine's account: of the class `user` as people are."""
        attributes = {
            "objectClass": "computer",
            "sAMAccountName": f"{name}$",
            "userAccountControl": str(WORKSTATION | NO_PASSWORD_NEEDED),
        }
        return self.add(f"CN={name},{parent}", attributes)

    def add_contact(self, name: str, parent: str = EMPLOYEES, **attributes: Values) -> str:
        """An address and no account."""
        return self.add(f"CN={name},{parent}", {"objectClass": "contact", **attributes})

    def disable(self, dn: str, disabled: bool = True) -> None:
        control = int(self.get(dn, "userAccountControl")["userAccountControl"][0]) & ~DISABLED
        self.set(dn, "userAccountControl", str(control | DISABLED if disabled else control))

    def set_primary_group(self, user: str, group: str) -> None:
        """The group takes the place of "Domain Users", and no longer lists the member, who has to be one
        already.
        """
        number = _sid(self.get(group, "objectSid")["objectSid"][0]).rpartition("-")[2]
        self.set(user, "primaryGroupID", number)

    def deny(self, dn: str, account: str, rights: str) -> None:
        """Takes rights at an entry and all below it from an account, both named by DN.

        `rights` as in MS-DTYP, section 2.5.1.1: without LC searches succeed and find nothing below the entry,
        without RP they find entries with few attributes.
        """
        sid = _sid(self.get(account, "objectSid")["objectSid"][0])
        database = f"-H{self.directory}/private/sam.ldb"
        ace = f"--sddl=(D;CI;{rights};;;{sid})"
        _samba_tool("dsacl", "set", f"--objectdn={dn}", ace, database, f"-s{self._config}")


def _sid(data: bytes) -> str:
    """A security identifier as text, the last part a number in the domain (MS-DTYP, section 2.4.2)."""
    parts = struct.unpack_from(f"<{data[1]}I", data, 8)
    return "-".join(["S", str(data[0]), str(int.from_bytes(data[2:8], "big")), *map(str, parts)])


def _free_address() -> str:
    if os.geteuid() != 0:
        raise ServerFailed("a domain controller's ports are fixed and need root; run the tests as root")
    while True:
        parts = (1 + secrets.randbelow(254) for _ in range(3))
        address = ".".join(map(str, (127, *parts)))
        if all(can_listen(address, port) for port in (389, 636, 3268, 3269)):
            return address


def domain(cache: Path, certificates: Certificates) -> Path:
    """The template of a domain, made now or in an earlier session. Raises ServerFailed."""
    if shutil.which("samba") is None or shutil.which("samba-tool") is None:
        raise ServerFailed("samba is not installed; run this as root: sh tools/servers.sh")
    version = subprocess.run(["samba", "--version"], capture_output=True, check=True).stdout
    # All that the template is made from: another Samba, or another text here, makes another one.
    name = hashlib.sha256(version + Path(__file__).read_bytes()).hexdigest()[:16]
    template = cache / name
    if not template.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # A socket's path has 107 bytes at most: the server runs where paths are short, not in the cache.
        with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory(dir=cache) as beside:
            made = _make_domain(Path(place), certificates)
            complete = Path(shutil.copytree(made, Path(beside) / name, ignore=_LEFT_BY_A_RUN))
            try:
                complete.rename(template)
            except OSError:
                # Another session was quicker.
                if not template.exists():
                    raise
    return template


def _make_domain(directory: Path, certificates: Certificates) -> Path:
    target = directory / "provisioned"
    _samba_tool(
        "domain",
        "provision",
        "--quiet",
        f"--realm={REALM}",
        f"--domain={DOMAIN}",
        f"--host-name={HOST_NAME}",
        "--host-ip=127.0.0.1",
        "--server-role=dc",
        "--use-rfc2307",
        "--dns-backend=NONE",
        f"--adminpass={ADMIN_PASSWORD}",
        f"--targetdir={target}",
        "--option=interfaces=127.0.0.1",
        "--option=bind interfaces only=yes",
    )
    policy = "--complexity=off --min-pwd-length=1 --history-length=0 --min-pwd-age=0 --max-pwd-age=0"
    _samba_tool("domain", "passwordsettings", "set", *policy.split(), f"-H{target}/private/sam.ldb")
    samba = Samba(directory, target, certificates)
    with samba:
        _standard(samba)
    return samba.directory


def _samba_tool(*arguments: str) -> None:
    done = subprocess.run(
        ["samba-tool", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise ServerFailed(f"samba-tool {' '.join(arguments[:3])}: {done.stdout}{done.stderr}")


def _write_config(directory: Path, address: str, certificate: Certificate, ca: Path) -> Path:
    """smb.conf(5) for a domain controller that opens nothing outside `directory` but the ports of LDAP."""
    run = directory / "run"
    run.mkdir(exist_ok=True)
    config = directory / "etc" / "smb.conf"
    config.write_text(
        f"""\
[global]
realm = {REALM}
workgroup = {DOMAIN}
netbios name = {HOST_NAME}
server role = active directory domain controller
server services = ldap
interfaces = {address}/8
bind interfaces only = yes
disable netbios = yes
ldap server require strong auth = no
tls enabled = yes
tls certfile = {certificate.cert}
tls keyfile = {certificate.key}
tls cafile = {ca}
private dir = {directory}/private
binddns dir = {directory}/bind-dns
lock directory = {directory}
state directory = {directory}/state
cache directory = {directory}/cache
pid directory = {run}
ncalrpc dir = {run}/ncalrpc
winbindd socket directory = {run}/winbindd
ntp signd socket directory = {run}/ntp_signd
idmap_ldb:use rfc2307 = yes
# Nothing has to survive the machine.
ldb:nosync = yes

[sysvol]
path = {directory}/state/sysvol
read only = no
"""
    )
    return config


def _standard(samba: Samba) -> None:
    """Nine accounts, one of them disabled, in three organisational units, and groups of each kind."""
    samba.add_user("reader", f"CN=Users,{BASE}", password=PASSWORD)
    samba.add_ou("employees")
    engineering = samba.add_ou("engineering", EMPLOYEES)
    backend = samba.add_ou("backend", engineering)
    sales = samba.add_ou("sales", EMPLOYEES)
    samba.add_ou("empty", EMPLOYEES)

    def person(name: str, cn: str, parent: str, password: str | None = None) -> str:
        return samba.add_user(
            name,
            parent,
            cn=cn,
            password=password,
            displayName=cn.replace("\\", ""),
            mail=f"{name.lower()}@example.com",
            userPrincipalName=f"{name}@{REALM.lower()}",
        )

    ada = person("ada", "Ada Abel", EMPLOYEES, PASSWORD)
    ben = person("ben", "Ben Brandt", EMPLOYEES)
    cleo = person("cleo", "Cleo Castro", engineering)
    dan = person("dan", "Dan Dietz", engineering)
    eva = person("eva", "Eva Ekholm", backend)
    finn = person("Finn", "Finn Fürst", backend)
    greta = person("greta", r"Gruber\, Greta \+ Co", sales)
    ida = samba.add_user("ida", sales, cn="Ida Ivers", displayName="Ida Ivers", disabled=True)
    samba.add_contact("Supplier", sales, mail="supplier@example.net")
    pc = samba.add_computer("PC1", sales)

    managers = samba.add_group("managers", members=[ben])
    samba.add_group("staff", members=[ada, greta, ida, pc])
    # "leads" nests two groups, one of which nests it.
    leads = samba.add_group("leads", members=[managers, cleo])
    circle = samba.add_group("circle", members=[leads, dan])
    samba.add_values(leads, "member", circle)
    samba.add_group("nobody")
    # One is listed, for the other it is the primary group.
    team = samba.add_group("engineering", members=[eva, finn])
    samba.set_primary_group(finn, team)


class NewSamba(Protocol):
    """What the fixture `new_samba` gives."""

    def __call__(self, certificate: Certificate | None = None) -> Samba: ...


@pytest.fixture(scope="session")
def samba_domain(pytestconfig: pytest.Config, certificates: Certificates) -> Path:
    """The template of the standard domain."""
    return domain(Path(pytestconfig.cache.mkdir("samba")), certificates)


@pytest.fixture
def new_samba(
    tmp_path_factory: pytest.TempPathFactory, samba_domain: Path, certificates: Certificates
) -> Iterator[NewSamba]:
    """A function that starts domain controllers of one's own; they are stopped when the test ends."""
    with ExitStack() as stack:

        def start(certificate: Certificate | None = None) -> Samba:
            directory = tmp_path_factory.mktemp("samba")
            return stack.enter_context(Samba(directory, samba_domain, certificates, certificate))

        yield start


@pytest.fixture(scope="session")
def samba(
    tmp_path_factory: pytest.TempPathFactory, samba_domain: Path, certificates: Certificates
) -> Iterator[Samba]:
    """A shared domain controller with the standard domain. Not for changing or stopping."""
    with Samba(tmp_path_factory.mktemp("shared-samba"), samba_domain, certificates) as server:
        yield server
