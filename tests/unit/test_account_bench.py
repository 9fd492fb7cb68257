"""The benchmark of accounts: it counts what it says, at both stand-ins, and tells what is reached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import pytest

from aim.desired.leaving import asked_about
from aim.errors import HomeserverError
from aim.matrix.account_server import AccountServer, Attribute
from aim.matrix.client import open_reader
from aim.ports import StoredAccount, StoredAccounts
from aim.world.accounts import Account, KnownAccounts
from bench.account_servers import Servers, Way, kind_of, running_servers
from bench.account_standin import AccountStandIn, Person
from bench.accounts import SIZE, TOY, Decided, Look, Measured, Synced, account_tables, decide, look, people_of
from bench.organisation import SERVER, Inputs, make_inputs
from bench.shape import Size
from tests.servers.mas import Asked

TINY = Size(users=400, groups=60, spaces=10)
PEOPLE = [Person("ann", "Ann", "ann@example.com"), Person("ben", "Ben", "ben@example.com")]
ANN, BEN = (Account(one.localpart, one.display_name, (one.email,)) for one in PEOPLE)
BOTH = frozenset(Attribute)


def known_of(people: Sequence[Person]) -> KnownAccounts:
    return KnownAccounts(
        {one.localpart: Account(one.localpart, one.display_name, (one.email,)) for one in people}
    )


# -- the stand-ins -------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(way: Way) -> AsyncIterator[tuple[Servers, AccountServer]]:
    async with running_servers(way, PEOPLE) as servers, open_reader(servers.homeserver) as homeserver:
        assert homeserver.accounts is not None
        yield servers, homeserver.accounts


async def all_questions(accounts: AccountServer) -> None:
    """Each that the book can have, and that it is answered as a server does that has these two."""
    assert [one.localpart async for page in accounts.accounts() for one in page] == ["ann", "ben"]
    assert [one async for page in accounts.deactivated() for one in page] == []
    assert [one.localpart for one in await accounts.newest({"ann"})] == ["ben"]
    assert await accounts.account("ben", BOTH) == BEN
    assert await accounts.account("eve", BOTH) is None
    assert await accounts.details(Account("ann"), BOTH) == ANN
    assert await accounts.owner("ben@example.com") == "ben"
    assert await accounts.owner("eve@example.com") is None


async def test_synapses_way_is_answered_and_counted() -> None:
    async with opened(Way.SYNAPSE) as (servers, accounts):
        await all_questions(accounts)
        assert await servers.asked() == {
            "account": 3,
            "whose address": 2,
            "page of accounts": 1,
            "page of deactivated accounts": 1,
            "page of new accounts": 1,
        }
        assert await servers.asked() == {}, "counted once"


async def test_mas_way_is_answered_and_counted() -> None:
    async with opened(Way.MAS) as (servers, accounts):
        await all_questions(accounts)
        found = [page async for page in accounts.emails()]
        assert found == [{"ann": ["ann@example.com"], "ben": ["ben@example.com"]}]
        assert await servers.asked() == {
            "account": 2,
            "addresses of one": 2,
            "display name": 2,
            "whose address": 2,
            "page of accounts": 1,
            "page of deactivated accounts": 1,
            "page of new accounts": 1,
            "page of addresses": 1,
            "token": 1,
        }


async def test_what_should_not_be_asked_fails_the_benchmark() -> None:
    async with running_servers(Way.MAS, PEOPLE) as servers:
        async with open_reader(replace(servers.homeserver, auth="synapse")) as homeserver:
            assert homeserver.accounts is not None
            with pytest.raises(HomeserverError):
                await homeserver.accounts.account("ann", BOTH)
        with pytest.raises(RuntimeError, match="never to be asked: GET /_synapse/admin/v2/users/%40ann"):
            await servers.asked()


def test_a_list_of_several_pages_leads_from_one_to_the_next() -> None:
    homeserver = AccountStandIn([Person("cleo", "Cleo", "cleo@example.com"), *PEOPLE])
    order = {"order_by": "creation_ts", "dir": "b", "limit": "1"}
    first, last, newest = (
        homeserver._page(query)[1] for query in ({"limit": "2"}, {"limit": "2", "from": "2"}, order)
    )

    assert [user["name"] for page in (first, last, newest) for user in page["users"]] == [
        "@ann:example.com",
        "@ben:example.com",
        "@cleo:example.com",
        "@ben:example.com",
    ]
    assert (first["next_token"], last.get("next_token")) == ("2", None)
    assert "threepids" not in first["users"][0]


def test_a_request_for_one_user_is_no_page() -> None:
    path = "/api/admin/v1/users/by-username/ann"
    assert kind_of(Asked("GET", path, {}, 200)) == "account"


# -- what is measured ----------------------------------------------------------------------------------------


class Store:
    """What is stored, in memory."""

    def __init__(self) -> None:
        self._stored = StoredAccounts()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        yield self

    async def load(self) -> StoredAccounts:
        return self._stored

    async def record(
        self,
        changed: Sequence[StoredAccount],
        gone: Collection[str] = (),
        listed_at: datetime | None = None,
    ) -> None:
        accounts = {**self._stored.accounts, **{one.account.localpart: one for one in changed}}
        self._stored = StoredAccounts(accounts, listed_at or self._stored.listed_at)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return make_inputs(TINY, changed=False)


@pytest.mark.parametrize(
    ("way", "first", "restarted"),
    [
        (Way.SYNAPSE, {"account": 398, "page of accounts": 1}, {"page of deactivated accounts": 1}),
        (
            Way.MAS,
            {"display name": 398, "page of accounts": 1, "page of addresses": 1, "token": 1},
            {"page of deactivated accounts": 1, "token": 1},
        ),
    ],
)
async def test_everything_is_read_once_and_remembered(
    inputs: Inputs, way: Way, first: Mapping[str, int], restarted: Mapping[str, int]
) -> None:
    people, store = people_of(inputs), Store()
    async with running_servers(way, people) as servers:
        synced, known = await look(way, servers, store.opened, asked_about(inputs.directory, inputs.recorded))

    assert synced.first.requests == first
    assert synced.second.requests == {}
    assert synced.poll.requests == {"page of new accounts": 1}
    assert synced.restarted.requests == restarted
    assert known == known_of(people)
    assert synced.first.seconds > 0 < synced.first.processor


def test_a_decision_is_measured_with_accounts_and_without(inputs: Inputs) -> None:
    found = decide(inputs, known_of(people_of(inputs)), 2)

    assert len(found.without) == len(found.accounts) == 2
    assert all(seconds > 0 for seconds in (*found.without, *found.accounts))


def test_a_decision_with_something_to_do_is_not_measured(inputs: Inputs) -> None:
    known = known_of([replace(one, display_name="Somebody else") for one in people_of(inputs)])
    with pytest.raises(RuntimeError, match="there is something to do"):
        decide(inputs, known, 1)


def test_fifty_thousand_have_an_account() -> None:
    # One in two hundred has none, from the first on.
    assert SIZE.users - len(range(0, SIZE.users, 200)) == 50_000


def test_people_are_those_of_the_directory_who_have_an_account(inputs: Inputs) -> None:
    people = people_of(inputs)

    assert len(people) == len(inputs.observed.accounts) == TINY.users - 2
    assert all(one.email.endswith(f"@{SERVER}") and one.display_name for one in people)


# -- what is shown -------------------------------------------------------------------------------------------


def measured(size: Size, more: int) -> Measured:
    """Of everything so many requests more than there have to be."""

    def found(**requests: int) -> Look:
        return Look({kind.replace("_", " "): count + more for kind, count in requests.items()}, 1.5, 0.5)

    after = found(page_of_new_accounts=1), replace(found(page_of_deactivated_accounts=1), seconds=0.25)
    pages, people = 50, 50_000
    synapse = found(page_of_accounts=pages, account=people)
    mas = found(page_of_accounts=pages, page_of_addresses=pages, display_name=people, token=1)
    again = found(account=0)
    both = [Synced(Way.SYNAPSE, synapse, again, *after), Synced(Way.MAS, mas, again, *after)]
    return Measured(size, people, both, Decided([0.1, 0.3, 0.2], [0.4, 0.4, 0.4]))


@pytest.mark.parametrize(("more", "said"), [(0, "yes"), (1, "NO")])
def test_the_tables_say_what_is_reached(more: int, said: str) -> None:
    looks, decisions, aims = account_tables(measured(SIZE, more))

    assert len(looks.rows) == 8
    assert decisions.rows[1] == ("with accounts", "400.0 ms", "400.0 ms", "2.00")
    assert len(aims.rows) == 11
    assert {row[-1] for row in aims.rows} == {said}


def test_the_tables_tell_what_was_asked_for() -> None:
    looks, *_ = account_tables(measured(SIZE, 0))

    which = "50 page of accounts, 50,000 account"
    assert looks.rows[0] == ("Synapse: first look", "50,050", "1.5 s", "500.0 ms", which)
    assert looks.rows[7][:3] == ("MAS: started again", "1", "250.0 ms")


def test_tokens_count_nowhere_but_in_the_first_look() -> None:
    found = measured(SIZE, 0)
    synapse, mas = found.synced
    restarted = Look({"token": 1, "page of deactivated accounts": 1}, 1.0, 1.0)
    *_, aims = account_tables(replace(found, synced=[synapse, replace(mas, restarted=restarted)]))

    assert aims.rows[-1] == ("MAS: started again: requests", "1", "1", "yes")


def test_a_toy_reaches_nothing() -> None:
    assert len(list(account_tables(measured(TOY, 0)))) == 2
