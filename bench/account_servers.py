"""What keeps the accounts, in a process of its own: its time is not ours, and it counts what we ask.

`accounts` ─► stdin: who has an account; then a line for each count that is wanted
           ◄─ stdout: where it answers; then what was asked since the last count

On Synapse's way that is one stand-in; on MAS's it is the stand-in of the tests, which checks each request and
each answer against the description of MAS's API, and the homeserver beside it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Any

from aim.matrix.account_server import PAGE
from aim.matrix.client import Homeserver
from aim.matrix.mas_transport import Credentials
from bench.account_standin import ACTOR_TOKEN, AS_TOKEN, AccountStandIn, Person
from bench.conversation import Talk, heard, say, talking
from bench.organisation import SERVER
from tests.servers.mas import Asked, Mas


class Way(StrEnum):
    """Who keeps the accounts."""

    SYNAPSE = "Synapse"
    MAS = "MAS"


# -- the process that answers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Serving:
    answers_at: Mapping[str, str]
    count: Callable[[], Mapping[str, Any]]
    """What was asked since the last time, and what should not have been."""


@asynccontextmanager
async def _serving(way: Way, people: Sequence[Person]) -> AsyncIterator[_Serving]:
    async with AsyncExitStack() as stack:
        homeserver = await stack.enter_async_context(AccountStandIn(people, mas=way is Way.MAS))
        mas = Mas()
        if way is Way.MAS:
            mas.page_size = PAGE
            for person in people:
                mas.add(person.localpart, person.email)
            await mas.start()
            stack.push_async_callback(mas.stop)

        def count() -> Mapping[str, Any]:
            asked = homeserver.asked + Counter(map(kind_of, mas.asked))
            homeserver.asked.clear()
            mas.forget()
            return {"asked": dict(asked.most_common()), "faults": [*homeserver.faults, *mas.deviations]}

        place = {"client_id": mas.client_id, "client_secret": mas.client_secret, "url": mas.url}
        yield _Serving({"homeserver": homeserver.url, **place}, count)


def kind_of(asked: Asked) -> str:
    """What a request to MAS is for."""
    match asked.path.removeprefix("/api/admin/v1/").split("/"):
        case ["users"] if asked.query.get("filter[status]") == "deactivated":
            return "page of deactivated accounts"
        case ["users"] if "page[last]" in asked.query:
            return "page of new accounts"
        case ["users"]:
            return "page of accounts"
        case ["users", *_]:
            return "account"
        case ["user-emails"] if "filter[email]" in asked.query:
            return "whose address"
        case ["user-emails"] if "filter[user]" in asked.query:
            return "addresses of one"
        case ["user-emails"]:
            return "page of addresses"
    return "token"


async def serve() -> None:
    """Answers until standard input ends."""
    given = json.loads(await heard())
    people = [Person(*fields) for fields in given["people"]]
    async with _serving(Way(given["way"]), people) as serving:
        say(serving.answers_at)
        while await heard():
            say(serving.count())


# -- the side that asks --------------------------------------------------------------------------------------


class Servers:
    """The running process. Made by `running_servers`."""

    def __init__(self, way: Way, talk: Talk) -> None:
        self._way = way
        self._talk = talk
        self._at: Mapping[str, str] = {}

    async def begin(self, people: Sequence[Person]) -> None:
        """These have an account."""
        given = {"way": self._way, "people": [astuple(person) for person in people]}
        self._at = await self._talk.told(json.dumps(given))

    @property
    def homeserver(self) -> Homeserver:
        """As a configuration would describe it; its bot is an admin."""
        credentials = Credentials(self._at["url"], self._at["client_id"], self._at["client_secret"])
        return Homeserver(
            url=self._at["homeserver"],
            server_name=SERVER,
            bot=f"@aim:{SERVER}",
            instance="aim",
            as_token=AS_TOKEN,
            actor_token=ACTOR_TOKEN,
            auth="mas" if self._way is Way.MAS else "synapse",
            mas=credentials if self._way is Way.MAS else None,
        )

    async def asked(self) -> Mapping[str, int]:
        """What was asked since the last time: what for → how often. Raises RuntimeError if anything should
        not have been."""
        found = await self._talk.told("")
        if found["faults"]:
            raise RuntimeError(
                f"never to be asked: {found['faults'][0]}, and {len(found['faults']) - 1} more"
            )
        return {str(kind): int(count) for kind, count in found["asked"].items()}


@asynccontextmanager
async def running_servers(way: Way, people: Sequence[Person]) -> AsyncIterator[Servers]:
    """A process that answers for these accounts; it ends with the context."""
    async with talking("bench.account_servers", "the accounts' server") as talk:
        servers = Servers(way, talk)
        await servers.begin(people)
        yield servers


if __name__ == "__main__":
    asyncio.run(serve())
