"""A real Synapse on this machine, for `aim demo` and for the tests.

In: an empty or earlier used folder, a server name, appservice registration files. Out: a homeserver that
answers on loopback, with registration closed, no federation and nothing kept outside its folder. Needs the
extra `demo`.

The configuration keys are those of Synapse's configuration manual; `POST /_synapse/admin/v1/register` is
described in its manual under shared-secret registration.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from aim.errors import AimError, HomeserverRefused, HomeserverUnavailable

HOST = "127.0.0.1"
START_TIMEOUT = 90.0
STOP_TIMEOUT = 15.0
_POLL = 0.03
_MODULE = "synapse.app.homeserver"
_UNLIMITED = {"per_second": 100_000, "burst_count": 100_000}


class DemoSynapse:
    """One Synapse: `start` and `stop` it as often as you like, what it knows stays in its folder.

    `async with DemoSynapse(folder, "example.test", [registration]) as synapse:` does both.
    """

    def __init__(
        self,
        directory: Path,
        server_name: str,
        registrations: Sequence[Path] = (),
        port: int | None = None,
    ) -> None:
        """`directory` is made if need be. Without a `port` a free one is found once and kept."""
        self.directory = directory.absolute()
        self.server_name = server_name
        self.registrations = [path.absolute() for path in registrations]
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port it listens on, from the first start on."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What the server says; appended to by each start."""
        return self.directory / "homeserver.log"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it is stopped."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts the server and returns when it answers. Does nothing if it is running.

        Raises AimError, with the end of the server's log, if it does not come up; it is ended then.
        """
        if self._process is not None:
            return
        if importlib.util.find_spec("synapse") is None:
            raise AimError(
                "Synapse is not installed", "install it with the extra: pip install 'matrix-aim[demo]'"
            )
        if not _is_free(self.port):
            # Else whoever listens there would be taken for our server.
            raise AimError(
                f"port {self.port} of {HOST} is in use", "stop what listens there, or choose another"
            )
        self._write_config()
        self._process = self._spawn()
        try:
            await self._answers(self._process)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops the server: asks first, insists after STOP_TIMEOUT. Does nothing if it is not running."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """Kills the server at once, as a power cut would. Does nothing if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        # Waits, and closes our end of the pipe.
        process.communicate()

    async def register(
        self, localpart: str, password: str, *, admin: bool = False, displayname: str | None = None
    ) -> str:
        """Makes an account by the shared secret, and gives its access token. Raises HomeserverRefused."""
        path = "/_synapse/admin/v1/register"
        nonce = str((await self._request("GET", path))["nonce"])
        parts = [nonce, localpart, password, "admin" if admin else "notadmin"]
        mac = hmac.new(self._secret("registration").encode(), "\0".join(parts).encode(), hashlib.sha1)
        body = {
            "nonce": nonce,
            "username": localpart,
            "password": password,
            "admin": admin,
            "mac": mac.hexdigest(),
            "displayname": displayname or localpart,
        }
        return str((await self._request("POST", path, body))["access_token"])

    async def login(self, localpart: str, password: str) -> str:
        """An access token for an account (`POST /_matrix/client/v3/login`). Raises HomeserverRefused."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": localpart},
            "password": password,
        }
        return str((await self._request("POST", "/_matrix/client/v3/login", body))["access_token"])

    async def set_admin(self, mxid: str, admin_token: str) -> None:
        """Makes an account a server admin, by the token of one who is. Raises HomeserverRefused."""
        await self._request("PUT", f"/_synapse/admin/v1/users/{mxid}/admin", {"admin": True}, admin_token)

    async def _request(
        self, method: str, path: str, body: Mapping[str, object] | None = None, token: str | None = None
    ) -> dict[str, object]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with (
                aiohttp.ClientSession(self.base_url, headers=headers) as session,
                session.request(method, path, json=body) as response,
            ):
                answer: dict[str, object] = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise HomeserverUnavailable(
                f"{method} {path} at {self.base_url}: {error}", f"look into {self.log}"
            ) from error
        if response.status >= 400:
            raise HomeserverRefused(
                f"{method} {path}: {answer.get('error', response.reason)}",
                status=response.status,
                errcode=str(answer.get("errcode", "")) or None,
            )
        return answer

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own interpreter, module and file
                [sys.executable, "-m", "aim.demo.child", _MODULE, "-c", str(self._config_file)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # Ctrl-C at a terminal is for us: we stop the server ourselves, in our own order.
                start_new_session=True,
            )

    async def _answers(self, process: subprocess.Popen[bytes]) -> None:
        url = f"{self.base_url}/_matrix/client/versions"
        try:
            async with asyncio.timeout(START_TIMEOUT), aiohttp.ClientSession() as session:
                while process.poll() is None:
                    if await _is_up(session, url):
                        return
                    await asyncio.sleep(_POLL)
        except TimeoutError as error:
            raise AimError(
                f"Synapse did not answer within {START_TIMEOUT:.0f} s: {self._last_words()}",
                f"look into {self.log}",
            ) from error
        raise AimError(f"Synapse ended while it started: {self._last_words()}", f"look into {self.log}")

    def _last_words(self) -> str:
        """What matters of the log when the server failed: the end of its last traceback, in one line."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        said = [line for line in lines if any(map(str.isalpha, line))]
        return " | ".join(said[-2:]) or "it said nothing"

    def _secret(self, name: str) -> str:
        """A secret of this server, made at first use and the same at every start."""
        path = self.directory / f"{name}.secret"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(32))
        return path.read_text()

    @property
    def _config_file(self) -> Path:
        return self.directory / "homeserver.yaml"

    def _write_config(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        signing_key = self.directory / "signing.key"
        if not signing_key.exists():
            # Made here and not by Synapse's --generate-keys: that would be a second start of two seconds.
            seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
            _write_private(signing_key, f"ed25519 a_demo {seed}\n")
        (self.directory / "log.yaml").write_text(json.dumps(_LOG_CONFIG))
        # JSON is YAML.
        _write_private(self._config_file, json.dumps(self._config(), indent=1))

    def _config(self) -> dict[str, object]:
        return {
            "server_name": self.server_name,
            "public_baseurl": f"{self.base_url}/",
            "pid_file": str(self.directory / "homeserver.pid"),
            "signing_key_path": str(self.directory / "signing.key"),
            "log_config": str(self.directory / "log.yaml"),
            "media_store_path": str(self.directory / "media"),
            "listeners": [
                {
                    "port": self.port,
                    "type": "http",
                    "bind_addresses": [HOST],
                    "resources": [{"names": ["client"], "compress": False}],
                }
            ],
            "database": {
                "name": "sqlite3",
                "args": {"database": str(self.directory / "homeserver.db")},
            },
            "app_service_config_files": [str(path) for path in self.registrations],
            "registration_shared_secret": self._secret("registration"),
            "macaroon_secret_key": self._secret("macaroon"),
            "form_secret": self._secret("form"),
            "enable_registration": False,
            "bcrypt_rounds": 4,
            "password_config": {"enabled": True},
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "federation_domain_whitelist": [],
            "report_stats": False,
            "presence": {"enabled": False},
            "url_preview_enabled": False,
            # Else a second initial /sync is answered from the first one's cache, and shows what was before.
            "caches": {"sync_response_cache_duration": "0s"},
            **_RATE_LIMITS,
        }


_RATE_LIMITS: dict[str, object] = {
    "rc_message": _UNLIMITED,
    "rc_registration": _UNLIMITED,
    "rc_login": {"address": _UNLIMITED, "account": _UNLIMITED, "failed_attempts": _UNLIMITED},
    "rc_joins": {"local": _UNLIMITED, "remote": _UNLIMITED},
    "rc_joins_per_room": _UNLIMITED,
    "rc_invites": {"per_room": _UNLIMITED, "per_user": _UNLIMITED, "per_issuer": _UNLIMITED},
    "rc_room_creation": _UNLIMITED,
}

_LOG_CONFIG: dict[str, object] = {
    "version": 1,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
    "disable_existing_loggers": False,
}


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    while True:
        # Below the range that systems take the ports of outgoing connections from: none can slip in between.
        port = 20_000 + secrets.randbelow(12_000)
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose old connections still linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


async def _is_up(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
