"""A real OpenLDAP server for tests, with its own files, ports and certificate. Needs no root.

`slapd` is shared and only for reading; it holds `standard.ldif`. `new_slapd` makes one of one's own (0.2 s),
to be changed, stopped, killed and started at will:

    slapd = new_slapd(Settings(page_limit=100))
    slapd.add_values("cn=managers,ou=groups,dc=example,dc=com", "member", "uid=dan,ou=engineering,…")
    slapd.restart()

Who asks decides what is seen. These are no entries of the directory, and PASSWORD is everybody's password:

    READER    sees everything but passwords, within the limits; so does the client certificate `reader`
    SEARCHER  sees nothing, and searches succeed
    OUTSIDER  sees nothing, and no entry exists
    uid=ada,ou=people,… and uid=ben,ou=people,… see their own entry
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pytest

from tests.servers.certificates import Certificate, Certificates
from tests.servers.editing import Editor
from tests.servers.process import Running, ServerFailed, ServerProcess, free_port

SUFFIX = "dc=example,dc=com"
STANDARD = Path(__file__).with_name("standard.ldif")
PASSWORD = "password"
READER, SEARCHER, OUTSIDER = (f"cn={name},dc=accounts" for name in ("reader", "searcher", "outsider"))

Limit = int | Literal["unlimited"]
_HOST = "127.0.0.1"
_MODULES = Path("/usr/lib/ldap")
_SCHEMAS = Path("/etc/ldap/schema")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server is set up."""

    ldif: Path | None = STANDARD
    """What is in the directory at first; None: nothing, not even the suffix."""
    suffix: str = SUFFIX
    anonymous: Literal["sees everything", "sees nothing", "is refused"] = "sees everything"
    plain_limit: Limit = 500
    """How many entries a search without pages gives."""
    page_limit: Limit = "unlimited"
    """How many entries a page may have."""
    paged_limit: Limit = "unlimited"
    """How many entries all pages together may have."""
    access: tuple[str, ...] = ()
    """Rules before the usual ones, as slapd.access(5) has them behind the word `access`."""
    syncrepl: bool = True
    """Whether it can tell what changed (RFC 4533)."""
    tls_only: bool = False
    """Whether it refuses to do anything without TLS."""
    clients_with_certificate_only: bool = False
    """Whether it takes TLS connections from nobody else."""
    certificate: Certificate | None = None
    """What it shows; None: a good one for localhost and 127.0.0.1."""
    lines: tuple[str, ...] = ()
    """Further lines of slapd.conf(5), about the database."""
    megabytes: int = 1024
    """How large the database may get; takes no more room than it needs."""


class Slapd(Running, Editor):
    """One server below `directory`: starts and stops as often as you like; keeps its entries and ports."""

    def __init__(self, directory: Path, certificates: Certificates, settings: Settings | None = None) -> None:
        self.directory = directory
        self.settings = settings or Settings()
        self.port, self.tls_port = free_port(), free_port()
        self.ca = certificates.ca
        """What clients are to trust."""
        self.log = directory / "slapd.log"
        self._certificate = self.settings.certificate or certificates.server("localhost", _HOST)
        self._binary = directory / "slapd"
        self._config = directory / "slapd.conf"
        self._prepare()
        urls = f"{self.uri} {self.tls_uri}"
        self._process = ServerProcess([self._binary, "-f", self._config, "-h", urls, "-d", "0"], self.log)

    @property
    def uri(self) -> str:
        """For plain LDAP and StartTLS."""
        return f"ldap://{_HOST}:{self.port}"

    @property
    def tls_uri(self) -> str:
        return f"ldaps://{_HOST}:{self.tls_port}"

    @property
    def edited_by(self) -> str:
        return self.tls_uri if self.settings.tls_only else self.uri

    @property
    def suffix(self) -> str:
        return self.settings.suffix

    @property
    def admin_dn(self) -> str:
        """Whom no rule and no limit holds."""
        return f"cn=admin,{self.suffix}"

    @property
    def admin_password(self) -> str:
        return PASSWORD

    @property
    def _addresses(self) -> Sequence[tuple[str, int]]:
        return [(_HOST, self.port), (_HOST, self.tls_port)]

    def load(self, ldif: Path) -> None:
        """Adds an LDIF file's entries: 15,000 a second. Only while it doesn't run. Raises ServerFailed."""
        assert self.pid is None, "stop it first"
        self._load(ldif, self.suffix)

    def _prepare(self) -> None:
        # Debian's AppArmor profile keeps /usr/sbin/slapd, by its path, to the machine's own directory.
        shutil.copy(shutil.which("slapd", path="/usr/sbin:/usr/local/sbin") or _not_there(), self._binary)
        for name in ("accounts", "entries"):
            (self.directory / name).mkdir()
        self._config.write_text("\n".join([*self._globals(), *self._accounts(), *self._entries(), ""]))
        accounts = self.directory / "accounts.ldif"
        accounts.write_text(_accounts_ldif())
        self._load(accounts, "dc=accounts")
        if self.settings.ldif:
            self._load(self.settings.ldif, self.suffix)

    def _load(self, ldif: Path, suffix: str) -> None:
        done = subprocess.run(
            [self._binary, "-T", "add", "-q", "-f", self._config, "-b", suffix, "-l", ldif],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ServerFailed(f"slapadd {ldif}: {done.stderr}")

    def _globals(self) -> Iterator[str]:
        settings = self.settings
        for schema in ("core", "cosine", "inetorgperson", "nis"):
            yield f"include {_SCHEMAS}/{schema}.schema"
        yield f"modulepath {_MODULES}"
        # ppolicy for its attributes: pwdAccountLockedTime and its like.
        for module in ("back_mdb", "syncprov", "ppolicy"):
            yield f"moduleload {module}"
        yield f"pidfile {self.directory}/slapd.pid"
        yield f"TLSCACertificateFile {self.ca}"
        yield f"TLSCertificateFile {self._certificate.cert}"
        yield f"TLSCertificateKeyFile {self._certificate.key}"
        yield f"TLSVerifyClient {'demand' if settings.clients_with_certificate_only else 'try'}"
        # A subject is normalised: CN=reader,OU=Clients,O=Example becomes cn=reader,ou=clients,o=example.
        yield 'authz-regexp "^cn=([^,]+),.*" "cn=$1,dc=accounts"'
        yield f"sizelimit size.soft={settings.plain_limit} size.hard={settings.plain_limit}" + (
            f" size.pr={settings.page_limit} size.prtotal={settings.paged_limit}"
        )
        if settings.tls_only:
            yield "security ssf=71"
        if settings.anonymous == "is refused":
            yield "disallow bind_anon"
            yield "require authc"

    def _accounts(self) -> Iterator[str]:
        yield from self._database("accounts", "dc=accounts")
        yield "access to * by anonymous auth"

    def _entries(self) -> Iterator[str]:
        settings = self.settings
        anonymous = "read" if settings.anonymous == "sees everything" else "search"
        yield from self._database("entries", self.suffix)
        yield f'rootdn "{self.admin_dn}"'
        yield f"rootpw {PASSWORD}"
        yield f"maxsize {settings.megabytes * 2**20}"
        yield "index objectClass,entryUUID,entryCSN,uid eq"
        for rule in settings.access:
            yield f"access {rule}"
        yield "access to attrs=userPassword by anonymous auth"
        yield (
            f"access to * by dn.exact={READER} read by dn.exact={SEARCHER} search by dn.exact={OUTSIDER} none"
            + (f" by self read by anonymous {anonymous} by * search")
        )
        yield from settings.lines
        if settings.syncrepl:
            yield "overlay syncprov"
            yield "syncprov-sessionlog 1000"

    def _database(self, name: str, suffix: str) -> Iterator[str]:
        yield "database mdb"
        yield f'suffix "{suffix}"'
        yield f"directory {self.directory}/{name}"
        # Nothing has to survive the machine.
        yield "envflags nosync writemap"


def _not_there() -> str:
    raise ServerFailed("slapd is not installed; run this as root: sh tools/servers.sh")


def _accounts_ldif() -> str:
    entries = [
        "dn: dc=accounts\nobjectClass: dcObject\nobjectClass: organization\ndc: accounts\no: accounts\n"
    ]
    for dn in (READER, SEARCHER, OUTSIDER):
        name = dn.removeprefix("cn=").removesuffix(",dc=accounts")
        entries.append(
            f"dn: {dn}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
            f"cn: {name}\nuserPassword: {PASSWORD}\n"
        )
    return "\n".join(entries)


class NewSlapd(Protocol):
    """What the fixture `new_slapd` gives."""

    def __call__(self, settings: Settings | None = None) -> Slapd: ...


@pytest.fixture
def new_slapd(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[NewSlapd]:
    """A function that starts servers of one's own, set up by Settings; stopped when the test ends."""
    with ExitStack() as stack:

        def start(settings: Settings | None = None) -> Slapd:
            server = Slapd(tmp_path_factory.mktemp("slapd"), certificates, settings)
            return stack.enter_context(server)

        yield start


@pytest.fixture(scope="session")
def slapd(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Slapd]:
    """A shared server with the standard directory. Not for changing or stopping."""
    with Slapd(tmp_path_factory.mktemp("shared-slapd"), certificates) as server:
        yield server
