"""Who is erased leaves no trace in any table; nobody else is touched; the audit tells people apart still."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from aim.directory.roster import Roster
from aim.errands import held_of_recorded
from aim.matrix.account_server import Attribute
from aim.matrix.book import Book, BookedWriter, Keeping
from aim.planner.actions import EraseAccount, Kick, SetPowerLevel, identity_of
from aim.planner.document import to_document, to_text
from aim.planner.plan import Plan, SourceCount
from aim.ports import (
    Letter,
    MailEvent,
    MirrorChanges,
    Outcome,
    OutcomeStatus,
    Stamp,
    StateKey,
    StoredAccount,
    StoredEvent,
    StoredMember,
)
from aim.store import RecorderStore
from aim.store.recorder import open_recorder
from aim.world.accounts import Account
from aim.world.recorded import Approval, Done, Queued, Seen
from tests.contract.test_store_queue import DAY, NOW
from tests.unit.test_account_book import Server, Writer

MEMBER = "m.room.member"
PSEUDONYM = re.compile(r"erased:[0-9a-f]{32}")
NAMES = ["annabel", "anna_bel", "anna%bel", 'anna"bel', "anna\\bel", "anna'bel", "änna.bel", "anna.*"]
"""The one who goes; some can only be of old accounts, or of an import."""


def others(name: str) -> list[str]:
    """Names that look like theirs, to a pattern or to a careless eye."""
    return [f"jo{name}", f"{name}e", re.sub(r"[_%.]", "x", name) + "z"]


def mxid(name: str, server: str = "example.com") -> str:
    return f"@{name}:{server}"


@pytest.fixture
async def recorder(dsn: str) -> AsyncIterator[RecorderStore]:
    async with open_recorder(dsn) as store:
        yield store


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    plain = await asyncpg.connect(dsn)
    yield plain
    await plain.close()


async def dump(connection: asyncpg.Connection) -> dict[str, str]:
    """Every table of ours, as text."""
    tables = await connection.fetch("select tablename from pg_tables where schemaname = 'aim'")
    found = {}
    for (table,) in tables:
        rows = await connection.fetch(f"select to_jsonb(t) as row from aim.{table} t")
        # Text in JSON in JSON: whatever is escaped there is to be seen as it is.
        found[table] = "\n".join(_plain(json.loads(row["row"])) for row in rows)
    return found


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{_plain(key)}={_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return _plain(json.loads(value))
        except ValueError:
            return value
    return str(value)


def plan_about(person: str, email: str, user_id: str = "") -> str:
    """A plan that names somebody wherever a plan can."""
    kick = identity_of("kick", "the lab", person)
    return to_text(
        {
            "format_version": 1,
            "digest": "sha256:1",
            "actions": [
                {
                    "type": "set_display_name",
                    "target": person,
                    "room": None,
                    "reason": f"{person} is called otherwise",
                    "after": [kick],
                    "details": {"display_name": f"Name of {person}", "was": f"Old {person}"},
                },
                {
                    "type": "create_space",
                    "target": None,
                    "room": "lab",
                    "reason": "configured",
                    "after": [],
                    "details": {"invite": [person, "@x:example.com"], "levels": {person: 50}},
                },
                {
                    "type": "kick",
                    "target": "@x:example.com",
                    "room": "lab",
                    "reason": "no longer in the directory",
                    "held": True,
                    "after": [],
                    "details": {},
                },
            ],
            "problems": [
                {"severity": "warning", "subject": person, "message": f"{email} is taken"},
                {
                    "severity": "warning",
                    "subject": "lab",
                    "message": f"{email} of {person} (id-of-{person}).",
                },
            ],
        }
    )


async def fill(recorder: RecorderStore, name: str) -> None:
    """Puts somebody into every column that can hold a name."""
    person, user_id, email = mxid(name), f"id-of-{name}", f"{name}@mail.example"
    await recorder.record_seen([Seen(user_id, name, False, NOW, NOW)], (), "ldif")
    await recorder.record_entitled({"lab": [name], "all": [name]}, NOW)
    await recorder.record_lapsed({"lab": [name]}, {}, NOW)
    await recorder.record_caused("!lab", name)
    await recorder.enqueue(
        [Queued(user_id=user_id, localpart=name, queued_at=NOW, due_at=NOW + DAY, reason="gone")]
    )
    await recorder.accounts.record([StoredAccount(Account(name, f"Name of {person}", (email,)), NOW)])
    await recorder.mirror.record(
        MirrorChanges(
            members=[StoredMember(StateKey("!lab", MEMBER, person), Stamp("$1", 1), "join", own=True)],
            doubts=[StateKey("!lab", MEMBER, person)],
            accounts=[name],
        ),
        NOW,
    )
    identity = identity_of("erase_account", "", person)
    await recorder.record_done(Done(identity, "erasures", "lab", name, NOW))
    await recorder.approve([Approval(identity, "root", NOW + DAY)], "sha256:1", NOW)
    cycle = await recorder.begin_cycle(plan_about(person, email.upper(), user_id), "sha256:1", NOW)
    kick = Kick(room="lab", space="lab", reason=f"{person} left", person=person)
    outcomes = [Outcome(kick, OutcomeStatus.FAILED, f"{person}: {email} refused, needs {kick.identity}.")]
    await recorder.end_cycle(cycle, outcomes, NOW)
    for number, status in enumerate(("waiting", "sending")):
        letter = Letter(
            key=f"{status} {name}",
            event=MailEvent.DEACTIVATED,
            localpart=name,
            recipients=[email],
            subject=f"Goodbye, {name}",
            text=f"Dear {person}",
            html=f"<p>{email}</p>",
            message_id=f"<{name}-{number}@example.com>",
        )
        await recorder.letters.post([letter], NOW)
        if status == "waiting":
            await recorder.letters.take(NOW)


async def fill_shared(recorder: RecorderStore, names: list[str]) -> None:
    """What names several people at once."""
    people = {mxid(name): 50 for name in names}
    levels = StoredEvent(
        StateKey("!lab", "m.room.power_levels", ""),
        Stamp("$2", 1),
        "@aim:example.com",
        json.dumps({"users": people, "ban": 50}),
    )
    topic = StoredEvent(StateKey("!lab", "m.room.name", ""), Stamp("$3", 1), mxid(names[0]), '{"name":"Lab"}')
    await recorder.mirror.record(MirrorChanges(events=[levels, topic]), NOW)
    await recorder.record_held([identity_of("erase_account", "", person) for person in people])


def traces(found: dict[str, str], name: str) -> list[str]:
    """Tables that name somebody, by their localpart as a whole word or by what holds it."""
    words = re.compile(
        rf"(?<![\w.%+*\\'\"-]){re.escape(name)}(?![\w.%+*\\'\"-])|{re.escape(mxid(name))}(?![\w.])"
        rf"|{re.escape(mxid(name).replace('%', '%25'))}(?![\w.])|id-of-{re.escape(name)}(?![\w])",
        re.IGNORECASE,
    )
    return sorted(table for table, text in found.items() if words.search(text))


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_names_them_any_more_and_nobody_else_is_touched(
    name: str, recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    for one in (name, *others(name)):
        await fill(recorder, one)
    await fill_shared(recorder, [name, *others(name)])
    before = await dump(connection)
    assert traces(before, name) == sorted(
        "accounts approvals caused cycles done entitled held letters mirror_accounts mirror_doubts"
        " mirror_members mirror_state outcomes queue seen".split()
    )

    await recorder.forget_person(f"id-of-{name}", mxid(name))

    after = await dump(connection)
    assert traces(after, name) == []
    for other in others(name):
        assert traces(after, other) == traces(before, other)
        for table in before:
            assert after[table].count(other) == before[table].count(other), (table, other)


async def test_the_audit_tells_people_apart(recorder: RecorderStore, connection: asyncpg.Connection) -> None:
    for name in ("ann", "bob"):
        await fill(recorder, name)
        await recorder.forget_person(f"id-of-{name}", mxid(name))
    for column in ("outcomes.target", "done.person", "done.identity", "approvals.identity"):
        table, _, field = column.partition(".")
        found = [str(row[0]) for row in await connection.fetch(f"select {field} from aim.{table} order by 1")]
        assert len(set(found)) == 2
        assert all(PSEUDONYM.search(text) for text in found), column
    targets = {row[0] for row in await connection.fetch("select target from aim.outcomes")}
    persons = {row[0] for row in await connection.fetch("select person from aim.done")}
    assert targets == persons, "the same person has the same pseudonym everywhere"
    reasons = await connection.fetchval("select string_agg(reason, ';' order by cycle) from aim.outcomes")
    assert PSEUDONYM.sub("X", reasons) == "X left;X left"


async def test_the_plan_stays_a_plan_under_its_digest(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    await fill(recorder, "annabel")
    await recorder.forget_person("id-of-annabel", mxid("annabel"))
    plan = await recorder.plan_by_digest("sha256:1")
    assert plan is not None
    document = json.loads(plan)
    first, second, _ = document["actions"]
    assert PSEUDONYM.fullmatch(first["target"])
    assert first["details"] == {}
    assert first["after"] == [f"kick the%20lab {first['target']}"]
    assert second["details"]["invite"] == [first["target"], "@x:example.com"]
    assert document["problems"][0] == {
        "severity": "warning",
        "subject": first["target"],
        "message": "(erased)",
    }
    assert await connection.fetchval("select digest from aim.cycles") == "sha256:1"
    # And what it holds of others can still be approved.
    assert list(held_of_recorded(plan)) == ["kick lab @x:example.com"]


async def test_another_server_that_begins_alike_is_another(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    alike = [mxid("ann", server) for server in ("example.com.au", "example.com:8448", "example.community")]
    cycle = await recorder.begin_cycle(json.dumps({"problems": [], "text": alike}), "sha256:1", NOW)
    for other in alike:
        kick = Kick(room="lab", space="lab", reason=f"gone: {other}", person=other)
        await recorder.record_outcomes(cycle, {len(other): Outcome(kick, OutcomeStatus.DONE)}, NOW)
        await recorder.record_done(Done(kick.identity, "kicks", "lab", other, NOW))
    before = await dump(connection)
    await recorder.forget_person("id-ann", mxid("ann"))
    after = await dump(connection)
    own = {"state", "erased"}
    assert {t: text for t, text in after.items() if t not in own} == {
        t: text for t, text in before.items() if t not in own
    }


async def test_a_cycle_that_erases_is_ended_without_naming_them(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    action = EraseAccount(
        room=mxid("ann"),
        space="",
        reason="left the directory",
        person=mxid("ann"),
        user_id="id-of-ann",
        due_at=NOW,
    )
    cycle = await recorder.begin_cycle(plan_about(mxid("ann"), "ann@mail.example"), "sha256:1", NOW)
    await recorder.forget_person("id-of-ann", mxid("ann"))
    await recorder.record_outcomes(cycle, {0: Outcome(action, OutcomeStatus.DONE)}, NOW)
    await recorder.end_cycle(cycle, [Outcome(action, OutcomeStatus.DONE)], NOW)
    # And what the homeserver tells afterwards: that they left their rooms. A plan that was made meanwhile.
    left = StoredMember(StateKey("!lab", MEMBER, mxid("ann")), Stamp("$1", 1), "leave", own=True)
    await recorder.mirror.record(MirrorChanges(members=[left]), NOW)
    await recorder.begin_cycle(plan_about(mxid("ann"), "x@mail.example"), "sha256:2", NOW)
    assert [table for table, text in (await dump(connection)).items() if "@ann:" in text] == []
    assert await connection.fetchval("select status from aim.cycles where id = $1", cycle) == "done"


async def test_what_goes_after_them_does_not_name_them(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    """Their level in a room, say; and bob's goes at the same time."""
    await recorder.forget_person("id-of-ann", mxid("ann"))
    for name in ("ann", "bob"):
        identity = identity_of("set_power_level", "lab", mxid(name), 0)
        await recorder.record_done(Done(identity, "demotions", "lab", name, NOW))
    table = (await dump(connection))["done"]
    assert traces({"done": table}, "ann") == []
    assert traces({"done": table}, "bob") == ["done"]
    recorded = (await recorder.load(Roster(), NOW)).done
    assert len({done.person for done in recorded}) == 2, "they count as they did"


async def test_a_name_that_is_back_is_recorded_again(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    await recorder.forget_person("id-of-ann", mxid("ann"))
    await recorder.record_seen([Seen("id-new", "ann", False, NOW, None)], (), "ldif")
    cycle = await recorder.begin_cycle("{}", "sha256:1", NOW)
    kick = Kick(room="lab", space="lab", reason="left", person=mxid("ann"))
    await recorder.end_cycle(cycle, [Outcome(kick, OutcomeStatus.DONE)], NOW)
    assert await connection.fetchval("select target from aim.outcomes") == mxid("ann")


async def test_mail_to_others_goes_on_without_them(recorder: RecorderStore) -> None:
    await recorder.accounts.record([StoredAccount(Account("ann", "Ann", ("ann@mail.example",)), NOW)])
    letter = Letter(
        key="held 1",
        event=MailEvent.HELD,
        localpart=None,
        recipients=["Ann@Mail.example", "bob@mail.example"],
        subject="held",
        text="see @ann:example.com",
        html="",
        message_id="<1@example.com>",
    )
    await recorder.letters.post([letter], NOW)
    await recorder.forget_person("id-of-ann", mxid("ann"))
    taken = await recorder.letters.take(NOW)
    assert taken is not None
    assert (taken.letter.key, taken.letter.recipients) == ("held 1", ("bob@mail.example",))
    assert PSEUDONYM.sub("X", taken.letter.text) == "see X"


async def test_mail_about_them_is_not_sent_and_not_told_again(recorder: RecorderStore) -> None:
    await fill(recorder, "annabel")
    await recorder.forget_person("id-of-annabel", mxid("annabel"))
    assert await recorder.letters.take(NOW + DAY) is None
    [under_way] = await recorder.letters.interrupted()
    assert (under_way.letter.recipients, under_way.letter.text) == ((), "")
    await recorder.letters.sent(under_way.id, NOW)
    assert await recorder.letters.interrupted() == []


async def test_who_had_the_account_before_them_goes_too(recorder: RecorderStore) -> None:
    users = [Seen("id-1", "ann", False, NOW, NOW), Seen("id-2", "ann", False, NOW, None)]
    await recorder.record_seen([*users, Seen("id-3", "ann", False, NOW, NOW)], (), "ldif")
    await recorder.forget_person("id-1", mxid("ann"))
    # Whoever is in the directory now under that name is another person.
    assert set((await recorder.load(Roster(), NOW)).seen) == {"id-2"}


async def test_it_is_all_or_nothing(recorder: RecorderStore, connection: asyncpg.Connection) -> None:
    await fill(recorder, "annabel")
    before = await dump(connection)
    await connection.execute("alter table aim.cycles rename column plan to plan_elsewhere")
    with pytest.raises(Exception, match="plan"):
        await recorder.forget_person("id-of-annabel", mxid("annabel"))
    await connection.execute("alter table aim.cycles rename column plan_elsewhere to plan")
    assert await dump(connection) == before


async def test_somebody_unknown_is_forgotten_without_a_word(recorder: RecorderStore) -> None:
    await recorder.forget_person("id-of-nobody", mxid("nobody"))


# Their addresses


PRIVATE = "private.alias@example.org"


class AccountsOfNow:
    """A book over an account server, as in the daemon; each is a new process over the same database."""

    def __init__(self, recorder: RecorderStore) -> None:
        self.server = Server()
        self.server.add("fay", PRIVATE)
        self.server.add("bob")
        self.recorder = recorder

    def book(self) -> Book:
        keeping = Keeping(attributes=frozenset(Attribute), verify_interval=DAY, records=True)
        return Book(self.server, keeping, now=lambda: NOW, store=self.recorder.accounts)

    async def erase(self) -> None:
        """As the executor does it: whoever is erased waits on the queue."""
        book = self.book()
        await book.observe({"fay": (), "bob": (PRIVATE,)})
        waiting = Queued(user_id="id-fay", localpart="fay", queued_at=NOW, due_at=NOW, reason="gone")
        await self.recorder.enqueue([waiting])
        await BookedWriter(Writer(self.server), book).erase("fay")


async def name_them(recorder: RecorderStore) -> None:
    """A plan of some earlier day, in which their address is told of somebody else."""
    text = f"should have the address {PRIVATE}, which @fay:example.com has"
    problem = {"severity": "warning", "subject": "@bob:example.com", "message": text}
    plan = to_text({"format_version": 1, "digest": "sha256:1", "actions": [], "problems": [problem]})
    cycle = await recorder.begin_cycle(plan, "sha256:1", NOW)
    await recorder.end_cycle(cycle, [], NOW)


@pytest.mark.parametrize("killed", [False, True], ids=["at once", "after a kill"])
async def test_addresses_of_who_is_erased_are_forgotten_too(
    recorder: RecorderStore, connection: asyncpg.Connection, killed: bool
) -> None:
    """The account has none any more by then, and the homeserver does not tell which it had."""
    await name_them(recorder)
    accounts = AccountsOfNow(recorder)
    await accounts.erase()
    if killed:
        found = await accounts.book().observe({"fay": (), "bob": ()})
        assert found.accounts["fay"].deactivated
    await recorder.forget_person("id-fay", "@fay:example.com")
    assert {table for table, text in (await dump(connection)).items() if PRIVATE in text} == set()
    assert traces(await dump(connection), "fay") == []


async def test_addresses_that_only_the_plan_knew_are_forgotten_too(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    await name_them(recorder)
    await recorder.forget_person("id-fay", "@fay:example.com", [PRIVATE])
    assert {table for table, text in (await dump(connection)).items() if PRIVATE in text} == set()


async def test_who_is_on_no_queue_leaves_no_account_behind(recorder: RecorderStore) -> None:
    accounts = AccountsOfNow(recorder)
    await accounts.erase()
    assert (await recorder.accounts.load()).accounts.keys() == {"bob", "fay"}
    await recorder.dequeue(["id-fay"])
    await accounts.book().observe({"fay": (), "bob": ()})
    assert (await recorder.accounts.load()).accounts.keys() == {"bob"}


async def test_a_name_does_not_come_back_with_a_later_session(
    dsn: str, connection: asyncpg.Connection
) -> None:
    """What the account left behind in a room is taken away later, by another process as well."""
    async with open_recorder(dsn) as recorder:
        await recorder.forget_person("id-of-her", "@annabel:example.com")
    demotion = SetPowerLevel(
        room="lab", space="lab", room_id="!lab", person="@annabel:example.com", level=0, was=50, reason="left"
    )
    plan = Plan(source=SourceCount("ldif", 1, 1), actions=(demotion,))
    async with open_recorder(dsn) as recorder:
        document = to_document(plan, NOW)
        cycle = await recorder.begin_cycle(to_text(document), str(document["digest"]), NOW)
        await recorder.record_done(Done(demotion.identity, "demotions", "lab", "annabel", NOW))
        await recorder.end_cycle(cycle, [Outcome(demotion, OutcomeStatus.DONE)], NOW)
    assert not [table for table, rows in (await dump(connection)).items() if "annabel" in rows]
    async with open_recorder(dsn) as recorder:
        # Somebody of that name is in the directory again.
        back = Seen("id-new", "annabel", weak_id=False, first_seen=NOW, gone_since=None)
        await recorder.record_seen([back], (), "ldif")
        await recorder.begin_cycle(to_text(document), str(document["digest"]), NOW)
    assert "annabel" in (await dump(connection))["cycles"]
