"""The stage of a journey: configuration, directory, a homeserver behind a counting proxy, the real commands.

Every command runs in a process of its own, on no terminal. Whatever it prints is looked through: no
traceback, no secret, no colour.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from tests.e2e.organisation import NAMES, PARENTS, Organisation, expected, spaces, the_yard
from tests.servers.proxy import Predicate, Proxy, Request
from tests.servers.synapse import ADMIN, Homeserver

Json = dict[str, Any]

PATIENCE = 60.0
"""Seconds after which something that should happen is given up on."""
_PAUSE = 0.05
_SETTLED = 15.0
MARKER = "aim.managed"
AIM = (sys.executable, "-m", "aim")
"""The command, as the interpreter of the tests runs it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        document: Json = json.loads(self.out)
        return document

    def error(self) -> tuple[str, str]:
        """Cause and remedy: one line each, and nothing else on standard error. The command has failed."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (1, 2), self
        assert lines[0].startswith("error: "), self
        return lines[0].removeprefix("error: "), lines[1]


@dataclass(frozen=True, slots=True)
class Room:
    """A room or space as the homeserver has it."""

    room_id: str
    key: str
    instance: str
    state: Mapping[tuple[str, str], Json] = field(repr=False)
    """(type, state key) → content."""

    def content(self, event_type: str, state_key: str = "") -> Json | None:
        return self.state.get((event_type, state_key))

    @property
    def name(self) -> str:
        return str((self.content("m.room.name") or {}).get("name"))

    @property
    def version(self) -> str:
        return str((self.content("m.room.create") or {}).get("room_version"))

    @property
    def is_space(self) -> bool:
        return (self.content("m.room.create") or {}).get("type") == "m.space"

    @property
    def levels(self) -> Json:
        return self.content("m.room.power_levels") or {}

    def members(self, *memberships: str) -> set[str]:
        """MXIDs with one of these memberships; without any, who joined or is invited. The bot too."""
        wanted = memberships or ("join", "invite")
        return {
            state_key
            for (event_type, state_key), content in self.state.items()
            if event_type == "m.room.member" and content.get("membership") in wanted
        }

    def related(self, event_type: str) -> set[str]:
        """Room ids that m.space.child or m.space.parent point to, withdrawn ones left out."""
        return {key for (kind, key), content in self.state.items() if kind == event_type and content}


class Command:
    """A command under way."""

    def __init__(self, process: asyncio.subprocess.Process, secrets: Sequence[str]) -> None:
        self._process = process
        self._secrets = secrets
        self._out = _Pipe(process.stdout)
        self._err = _Pipe(process.stderr)
        self.pid = process.pid

    @property
    def err(self) -> str:
        """What it has said on standard error by now."""
        return self._err.text

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def end(self, patience: float = PATIENCE) -> Result:
        """Waits for its end."""
        async with asyncio.timeout(patience):
            code = await self._process.wait()
            result = Result(code, await self._out.end(), await self._err.end())
        for text in (result.out, result.err):
            assert "Traceback" not in text, text
            assert "\x1b" not in text, "this is no terminal, and there are control sequences"
            for secret in self._secrets:
                assert secret not in text, "a secret was printed"
        return result

    async def kill(self) -> Result:
        """SIGKILL: it gets no chance to clean up."""
        self._process.kill()
        return await self.end()

    async def terminate(self, patience: float = PATIENCE) -> Result:
        """SIGTERM, and waits for the end."""
        self._process.send_signal(signal.SIGTERM)
        return await self.end(patience)

    async def says(self, words: str) -> None:
        """Waits until it has said that on standard error."""
        await until(lambda: words in self.err or not self.is_running, f"it says {words!r}")
        assert words in self.err, self.err


class _Pipe:
    """Reads what comes, so that the writer never has to wait."""

    def __init__(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        self.text = ""
        self._task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.text += line.decode()

    async def end(self) -> str:
        await self._task
        return self.text


class Stage:
    """Everything that one journey takes. Change `config` and `organisation` by `configure` and `give`."""

    def __init__(
        self, directory: Path, homeserver: Homeserver, proxy: Proxy, database: str | None, instance: str = ""
    ) -> None:
        """`database` is a DSN; None: the embedded Postgres under `data_dir`. `instance` keeps stages of one
        bot apart."""
        self.directory = directory
        self.homeserver = homeserver
        self.proxy = proxy
        self.database = database
        self.instance = instance or homeserver.appservice.id
        self.organisation = the_yard()
        appservice = homeserver.appservice
        self.config: Json = {
            "homeserver": {
                "url": proxy.url,
                "server_name": homeserver.server_name,
                "admin_user": ADMIN,
            },
            "appservice": {
                "id": self.instance,
                "sender_localpart": appservice.sender_localpart,
                "as_token": appservice.as_token,
                "hs_token": appservice.hs_token,
                "actor_token": appservice.actor_token,
            },
            "data_dir": "data",
            "source": {"type": "ldif", "path": "directory.ldif", "check_interval_seconds": 1},
            "provisioner": {
                "default_rooms": [{"id": "general", "properties": {"name": "General", "suggested": True}}]
            },
            "spaces": spaces(),
        }
        if appservice.port is not None:
            self.config["listen"] = {"host": "127.0.0.1", "port": appservice.port}
        if database is not None:
            self.config["database"] = {"url": database}
        self.configure()
        self.give(self.organisation)

    # -- what the journey changes ------------------------------------------------------------------------

    @property
    def config_file(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def ldif(self) -> Path:
        return self.directory / "directory.ldif"

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def configure(self, **sections: object) -> None:
        """Writes the configuration, with these top-level sections replaced. JSON is YAML."""
        self.config |= sections
        self.config_file.write_text(json.dumps(self.config), encoding="utf-8")

    def give(self, organisation: Organisation) -> Organisation:
        """The directory is like this now. Replaced at once, never seen half written."""
        self.organisation = organisation
        self.write_ldif(organisation.ldif())
        return organisation

    def write_ldif(self, text: str) -> None:
        draft = self.ldif.with_suffix(".new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.ldif)

    async def register_everybody(self) -> None:
        await self.homeserver.register(*self.organisation.people)

    # -- commands ----------------------------------------------------------------------------------------

    async def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Command:
        """Starts a command, on no terminal and with nothing on its standard input."""
        return await start_aim(self.config_file, self.secrets, arguments, environ or {})

    @property
    def secrets(self) -> list[str]:
        """What must never be seen anywhere."""
        appservice = self.config["appservice"]
        return [appservice[key] for key in ("as_token", "hs_token", "actor_token") if key in appservice]

    async def aim(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Result:
        """Runs a command to its end."""
        return await (await self.start(*arguments, environ=environ)).end(2 * PATIENCE)

    async def plan(self, *options: str) -> Json:
        """`aim plan --json`, whatever it holds."""
        result = await self.aim("plan", "--json", *options)
        assert (result.code in {0, 3}, result.err) == (True, ""), result
        return result.json

    async def apply(self, code: int = 0) -> Result:
        """`aim apply --yes`."""
        result = await self.aim("apply", "--yes")
        assert result.code == code, result
        return result

    async def provision(self) -> None:
        """Everybody has an account, and everything is as configured."""
        await self.register_everybody()
        await self.apply()

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Command]:
        """`aim run`, killed at the end if nothing else ended it."""
        command = await self.start("run")
        try:
            yield command
        finally:
            if command.is_running:
                await command.kill()

    # -- what the homeserver has -------------------------------------------------------------------------

    def mxid(self, localpart: str) -> str:
        return self.homeserver.mxid(localpart)

    def mxids(self, *localparts: str) -> set[str]:
        return {self.mxid(localpart) for localpart in localparts}

    async def all_rooms(self) -> list[Room]:
        """All rooms that the bot ever made for this instance, two with one key included, the control room and
        what nobody is in any more left out."""
        ids = [room["room_id"] for room in await self.homeserver.rooms()]
        states = await asyncio.gather(*map(self.homeserver.state, ids))
        rooms = (_room(room_id, state) for room_id, state in zip(ids, states, strict=True))
        return [room for room in rooms if room is not None and room.instance == self.instance]

    async def rooms(self) -> dict[str, Room]:
        """Key → room. No two rooms have one key."""
        found = await self.all_rooms()
        by_key = {room.key: room for room in found}
        assert len(by_key) == len(found), sorted(room.key for room in found)
        return by_key

    async def look(self, room_id: str) -> Room:
        """Any room by its id, whoever made it; `key` is of our marker, made or put there, else empty. Of a
        room that everybody has left nothing is known."""
        events = await self.homeserver.state(room_id)
        state = {(event["type"], event["state_key"]): event["content"] for event in events}
        made = state.get(("m.room.create", ""), {}).get(MARKER, {})
        marker = made or state.get((MARKER, self.homeserver.bot), {})
        return Room(room_id, marker.get("key", ""), marker.get("instance", ""), state)

    async def membership(self, key: str, localpart: str) -> str | None:
        """Somebody's membership in a room, by the room's key."""
        content = (await self.rooms())[key].content("m.room.member", self.mxid(localpart)) or {}
        return content.get("membership")

    async def join_all(self, *localparts: str) -> None:
        """These people, by default all, accept what they are invited to."""
        uids = localparts or tuple(self.organisation.people)
        for room in (await self.rooms()).values():
            for uid in uids:
                if self.mxid(uid) in room.members("invite"):
                    await self.homeserver.client(uid).join(room.room_id)

    async def tree(self, localpart: str, key: str) -> set[str]:
        """Names of all that somebody's client shows of a space (`GET /hierarchy`), the space included."""
        room_id = (await self.rooms())[key].room_id
        answer = await self.homeserver.request(
            "GET",
            f"/_matrix/client/v1/rooms/{quote(room_id, safe='')}/hierarchy"
            f"?user_id={quote(self.mxid(localpart), safe='')}",
            token=self.homeserver.actor_token,
        )
        return {room["name"] for room in answer["rooms"]}

    async def assert_follows(self, organisation: Organisation | None = None) -> dict[str, Room]:
        """The homeserver is as the directory and the configuration say, in every space and default room."""
        organisation = organisation or self.organisation
        wanted = expected(organisation)
        rooms = await self.rooms()
        defaults = [room["id"] for room in self.config["provisioner"]["default_rooms"]]
        assert set(rooms) == {*wanted, *(f"{space}/{room}" for space in wanted for room in defaults)}
        for space, people in wanted.items():
            self._assert_tied(rooms, space, [f"{space}/{room}" for room in defaults])
            for key in (space, *(f"{space}/{room}" for room in defaults)):
                inside = rooms[key].members() - {self.homeserver.bot}
                assert inside == self.mxids(*people.members), key
                levels = rooms[key].levels.get("users", {})
                moderators = {mxid for mxid, level in levels.items() if level == 50}
                assert moderators == self.mxids(*people.moderators), key
                assert set(levels) - moderators <= {self.homeserver.bot}, key
        return rooms

    def _assert_tied(self, rooms: Mapping[str, Room], space: str, defaults: Sequence[str]) -> None:
        """The space has its name, its children know it, and it knows no others."""
        assert rooms[space].name == NAMES[space]
        children = [*defaults, *(key for key, parent in PARENTS.items() if parent == space)]
        assert rooms[space].related("m.space.child") == {rooms[key].room_id for key in children}, space
        for key in children:
            assert rooms[key].related("m.space.parent") == {rooms[space].room_id}, key

    async def settles(self) -> Json:
        """Waits until nothing is left to do, and nothing is done any more; gives the plan.

        The control room's counter aside: by that a daemon sees that it hears the homeserver. A plan takes a
        second or two, in which a daemon that runs in circles does so. It is made from the homeserver itself,
        not from the daemon's mirror.
        """
        plan: Json = {}

        async def is_done() -> bool:
            self.proxy.forget()
            plan.update(await self.plan("--fresh"))
            writes = [request for request in self.proxy.writes if "/state/aim.control" not in request.path]
            return (plan["actions"], writes) == ([], [])

        await until(is_done, "nothing is left to do, and nothing is done", _SETTLED)
        return plan

    # -- what the database has ---------------------------------------------------------------------------

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Rows of the database, which is not the embedded one."""
        connection = await asyncpg.connect(self.database)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def cycles(self) -> list[str]:
        """The status of every recorded cycle, oldest first."""
        return [row["status"] for row in await self.fetch("select status from aim.cycles order by id")]


async def start_aim(
    config: Path, secrets: Sequence[str], arguments: Sequence[str], environ: Mapping[str, str]
) -> Command:
    """Starts a command, on no terminal and with nothing on its standard input."""
    process = await asyncio.create_subprocess_exec(
        *AIM,
        *arguments,
        env={**os.environ, "AIM_CONFIG": str(config), **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return Command(process, secrets)


def _room(room_id: str, events: Sequence[Json]) -> Room | None:
    state = {(event["type"], event["state_key"]): event["content"] for event in events}
    if not state:
        return None
    # Without a marker: one that a test had the bot make.
    marker = state["m.room.create", ""].get(MARKER, {"control": True})
    return None if "control" in marker else Room(room_id, marker["key"], marker["instance"], state)


# -- conditions and moments ------------------------------------------------------------------------------


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, patience: float = PATIENCE
) -> None:
    """Waits for a condition."""
    try:
        async with asyncio.timeout(patience):
            while True:
                fulfilled = condition()
                if fulfilled if isinstance(fulfilled, bool) else await fulfilled:
                    return
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise AssertionError(f"did not happen within {patience:.0f} s: {what}") from None


def number(n: int, when: Predicate = lambda request: request.is_write) -> Predicate:
    """Is true for the n-th of those requests alone, counted from 1."""
    seen = 0

    def is_it(request: Request) -> bool:
        nonlocal seen
        seen += when(request)
        return when(request) and seen == n

    return is_it


def ends_with(path: str) -> Predicate:
    """Writes to such a path."""
    return lambda request: request.is_write and request.path.endswith(path)


def actions(plan: Json) -> dict[tuple[str, str, str | None], Json]:
    """(type, room, target) → action, of a plan as JSON."""
    return {(action["type"], action["room"], action["target"]): action for action in plan["actions"]}
