"""The reader and the account finder over canned answers: what is asked, and what is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import unquote

import pytest
from mautrix.api import PathBuilder

from aim.directory.roster import Roster
from aim.errors import ConfigError, HomeserverRefused, HomeserverUnavailable
from aim.matrix.accounts import Accounts, AccountsWay
from aim.matrix.observe import Reader
from aim.matrix.parallel import each
from aim.matrix.parse import Home
from aim.matrix.transport import ReadTransport
from aim.world.rooms import MARKER_TYPE

HOME = Home("example.com", "@aim:example.com", "aim")
Query = Mapping[str, str]
V3, V2 = "_synapse/admin/v3/users", "_synapse/admin/v2/users"


class Canned:
    """A homeserver made of rooms and accounts."""

    def __init__(self) -> None:
        self.rooms: dict[str, list[dict[str, object]]] = {}
        self.others: dict[str, list[dict[str, object]]] = {}
        """Public rooms that the bot is not in."""
        self.accounts: set[str] = set()
        self.admin_api: Callable[[str, Query], object] = lambda path, query: _refuse(403, "M_FORBIDDEN")
        self.acting_code = "M_FORBIDDEN"
        self.asked: list[tuple[str, str | None]] = []
        self.bot = HOME.bot

    async def fetch(self, path: PathBuilder, query: Query | None, user_id: str | None) -> object:
        name = unquote(str(path))
        self.asked.append((name, user_id))
        # Lets the others in, as a real request would.
        await asyncio.sleep(0)
        if name.startswith("_synapse"):
            return self.admin_api(name, query or {})
        other = self._other(name, user_id)
        if other is not None:
            return other
        match name.removeprefix("_matrix/client/v3/").split("/"):
            case ["joined_rooms"]:
                return {"joined_rooms": [*self.rooms, 7]}
            case ["capabilities"]:
                return {"capabilities": {"m.room_versions": {"default": "12", "available": {"12": "stable"}}}}
            case ["rooms", room_id, "state"]:
                return self.rooms[room_id]
            case ["account", "whoami"] if user_id is None:
                return {"user_id": self.bot}
            case ["account", "whoami"] if user_id in self.accounts:
                return {"user_id": user_id}
            case ["account", "whoami"]:
                return _refuse(403, self.acting_code)
        raise AssertionError(name)

    def _other(self, name: str, user_id: str | None) -> object:
        """What concerns rooms that the bot is not in, else None."""
        match name.split("/")[3:]:
            case ["rooms", _, "hierarchy"]:
                return {"rooms": [{"room_id": room_id, "join_rule": "public"} for room_id in self.others]}
            case ["rooms", room_id, "state"] if user_id is not None:
                return self.others[room_id]
            case ["directory", "room", alias]:
                return {"room_id": "!c"} if alias == "#c:example.com" else _refuse(404, "M_NOT_FOUND")
        return None

    def reader(self, **options: object) -> Reader:
        transport = ReadTransport(self.fetch)
        return Reader(transport, HOME, Accounts(transport, HOME.server_name), **options)  # type: ignore[arg-type]  # keyword arguments of tests

    def whoami(self) -> list[str]:
        """As whom it was asked for an account."""
        return [user_id for path, user_id in self.asked if path.endswith("whoami") and user_id is not None]


def _refuse(status: int, errcode: str | None) -> object:
    raise HomeserverRefused("no", "remedy", status=status, errcode=errcode)


def made(key: str, created: int = 0, version: int = 1, *joined: str) -> list[dict[str, object]]:
    marker = {"version": version, "instance": "aim", "key": key}
    events: list[dict[str, object]] = [
        {
            "type": "m.room.create",
            "state_key": "",
            "sender": HOME.bot,
            "origin_server_ts": created,
            "content": {"room_version": "12", MARKER_TYPE: marker},
        }
    ]
    for name in joined:
        content = {"membership": "join"}
        events.append({"type": "m.room.member", "state_key": f"@{name}:example.com", "content": content})
    return events


async def test_rooms_that_are_not_ours_are_left_out() -> None:
    homeserver = Canned()
    homeserver.rooms = {"!a": made("a"), "!b": made("b")[1:], "!c": []}
    observed = await homeserver.reader().observe(Roster(), [], {})
    assert {key: room.room_id for key, room in observed.rooms.items()} == {"a": "!a"}
    assert (observed.server_name, observed.bot) == (HOME.server_name, HOME.bot)
    assert observed.default_room_version == "12"


async def test_a_recorded_room_whose_marker_is_gone_stays_in_sight() -> None:
    homeserver = Canned()
    homeserver.rooms = {"!a": made("a"), "!b": made("b"), "!c": made("c")}
    for room_id in ("!b", "!c"):
        homeserver.rooms[room_id][0]["content"] = {"room_version": "12"}
    observed = await homeserver.reader().observe(Roster(), [], {"!b": "!b"})
    assert (list(observed.rooms), list(observed.unmanaged)) == (["a"], ["!b"])


async def test_the_recorded_room_counts_else_the_oldest() -> None:
    homeserver = Canned()
    homeserver.rooms = {
        "!young": made("a", 9),
        "!old": made("a", 1),
        "!oldest": made("b", 0),
        "!recorded": made("b", 5),
        "!tie2": made("c", 1),
        "!tie1": made("c", 1),
        "!one": made("d"),
    }
    observed = await homeserver.reader().observe(Roster(), [], {"b": "!recorded", "d": "!gone"})
    assert {key: room.room_id for key, room in observed.rooms.items()} == {
        "a": "!old",
        "b": "!recorded",
        "c": "!tie1",
        "d": "!one",
    }
    assert observed.duplicates == {"a": ("!young",), "b": ("!oldest",), "c": ("!tie2",)}


async def test_what_people_put_into_our_spaces_and_what_is_named_is_looked_at() -> None:
    homeserver = Canned()
    child = {"type": "m.space.child", "state_key": "!b", "sender": "@eve:example.com"}
    homeserver.rooms = {"!a": [*made("a"), {**child, "content": {"via": ["example.com"]}}]}
    homeserver.rooms["!a"][0]["content"]["type"] = "m.space"  # type: ignore[index] # JSON
    homeserver.others = {"!b": made("b")[:1], "!c": made("c")[:1]}
    for events in homeserver.others.values():
        events[0]["sender"] = "@eve:example.com"
    observed = await homeserver.reader().observe(Roster(), [], {}, {"#c:example.com": ["ann"], "#d": []})
    assert set(observed.rooms) == {"a"}
    assert set(observed.unmanaged) == {"!b", "!c"}
    assert observed.aliases == {"#c:example.com": "!c"}
    assert set(observed.unseen) == {"#d"}


async def test_a_token_of_another_name_is_an_error_and_not_an_empty_homeserver() -> None:
    homeserver = Canned()
    homeserver.bot = "@aim:example.org"
    with pytest.raises(ConfigError, match=r"belongs to @aim:example\.org, the configuration says @aim:"):
        await homeserver.reader().observe(Roster(), ["ann"], {})
    assert homeserver.whoami() == []


async def test_a_newer_marker_means_hands_off() -> None:
    homeserver = Canned()
    homeserver.rooms = {"!n": made("a", 0, 2), "!o": made("b")}
    observed = await homeserver.reader().observe(Roster(), [], {})
    assert observed.newer == {"a": "!n"}
    assert set(observed.rooms) == {"b"}
    assert not observed.duplicates


async def test_progress_and_parallelism() -> None:
    homeserver = Canned()
    homeserver.rooms = {f"!{number}": made(str(number)) for number in range(30)}
    told: list[tuple[int, int]] = []
    reader = homeserver.reader(parallelism=4, progress=lambda done, total: told.append((done, total)))
    assert len((await reader.observe(Roster(), [], {})).rooms) == 30
    assert told == [(done, 30) for done in range(1, 31)]


async def test_without_admin_rights_only_those_who_are_in_no_room_are_asked() -> None:
    homeserver = Canned()
    homeserver.rooms = {"!a": made("a", 0, 1, "ann", "zoe"), "!b": made("b", 0, 1, "ben")}
    homeserver.accounts = {"@cem:example.com", "@zoe:example.com"}
    roster = Roster()
    observed = await homeserver.reader().observe(roster, ["ann", "ben", "cem", "dan"], {})
    assert roster.localparts(observed.accounts) == ["ann", "ben", "cem"]
    assert homeserver.whoami() == ["@cem:example.com", "@dan:example.com"]
    assert await homeserver.reader().accounts_way() is AccountsWay.ASK


async def test_nobody_wanted_costs_nothing() -> None:
    homeserver = Canned()
    homeserver.rooms = {"!a": made("a")}
    await homeserver.reader().observe(Roster(), [], {})
    # Which rooms, what is in the one, and the default room version.
    assert len(homeserver.asked) == 3


async def test_no_right_to_act_is_an_error_and_not_an_empty_list() -> None:
    homeserver = Canned()
    homeserver.acting_code = "M_EXCLUSIVE"
    with pytest.raises(HomeserverRefused):
        await homeserver.reader().observe(Roster(), ["ann"], {})


def pages(*names: str, size: int, only: str) -> Callable[[str, Query], object]:
    """The admin API's list, `size` accounts a page; other versions than `only` are unknown."""

    def answer(path: str, query: Query) -> object:
        if path != only:
            return _refuse(404, "M_UNRECOGNIZED")
        assert query.items() >= {"locked": "true", "deactivated": "false", "guests": "false"}.items()
        start = int(query.get("from", 0))
        rest = {"next_token": str(start + size)} if start + size < len(names) else {}
        return {"users": [{"name": name} for name in names[start : start + size]], **rest}

    return answer


@pytest.mark.parametrize("version", [V3, V2])
async def test_the_list_is_read_to_its_end(version: str) -> None:
    homeserver = Canned()
    everyone = ("@ann:example.com", "@ben:example.com", "@cem:other.org", "@dan:example.com", "odd")
    homeserver.admin_api = pages(*everyone, size=2, only=version)
    roster = Roster()
    observed = await homeserver.reader().observe(roster, ["ann", "cem", "dan", "eva"], {})
    assert roster.localparts(observed.accounts) == ["ann", "dan"]
    assert homeserver.whoami() == []
    assert await homeserver.reader().accounts_way() is AccountsWay.LIST


async def test_a_list_that_leads_back_to_itself_ends() -> None:
    homeserver = Canned()
    homeserver.admin_api = lambda path, query: {"users": "none", "next_token": "1"}
    accounts = Accounts(ReadTransport(homeserver.fetch), "example.com")
    assert await asyncio.wait_for(accounts.listed({"ann"}), 5) == set()


@pytest.mark.parametrize(("status", "errcode"), [(403, "M_FORBIDDEN"), (404, None), (403, "M_EXCLUSIVE")])
async def test_no_list_for_us(status: int, errcode: str | None) -> None:
    homeserver = Canned()
    homeserver.admin_api = lambda path, query: _refuse(status, errcode)
    assert await homeserver.reader().accounts_way() is AccountsWay.ASK


async def test_a_bad_token_is_an_error() -> None:
    homeserver = Canned()
    homeserver.admin_api = lambda path, query: _refuse(401, "M_UNKNOWN_TOKEN")
    with pytest.raises(HomeserverRefused):
        await homeserver.reader().accounts_way()


async def test_the_admin_acts_and_outdoes_the_filter() -> None:
    homeserver = Canned()
    seen: list[Query] = []

    def answer(path: str, query: Query) -> object:
        seen.append(query)
        return {"users": []}

    homeserver.admin_api = answer
    transport = ReadTransport(homeserver.fetch)
    await Accounts(transport, "example.com", admin="@root:example.com").listed({"ann"})
    await Accounts(transport, "example.com").listed({"ann"})
    assert [query.get("name") for query in seen] == ["%", None]
    assert [user_id for _, user_id in homeserver.asked] == ["@root:example.com", None]


async def test_with_mas_the_admin_api_is_never_asked() -> None:
    homeserver = Canned()
    accounts = Accounts(ReadTransport(homeserver.fetch), "example.com", admin_api=False)
    assert await accounts.listed({"ann"}) is None
    assert await accounts.way() is AccountsWay.ASK
    assert homeserver.asked == []


async def test_each_keeps_order_and_limit() -> None:
    running, most = 0, 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(number % 3):
            await asyncio.sleep(0)
        running -= 1
        return number * 2

    assert await each(work, range(50), 7) == [number * 2 for number in range(50)]
    assert most == 7
    assert await each(work, [], 7) == []


async def test_each_ends_with_the_first_error_and_leaves_nothing_running() -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise HomeserverUnavailable("gone")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(HomeserverUnavailable):
        await each(work, range(100), 5)
    assert begun == [0, 1, 2, 3, 4]
    assert sorted(cancelled) == [0, 1, 2, 4]
