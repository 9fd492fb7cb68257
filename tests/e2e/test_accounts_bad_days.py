"""Bad days of accounts, on a real Synapse: nobody is erased, and nobody is locked who should not be.

All tests of a Synapse share its accounts: only people whom no other test knows may be locked (`hires`).
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import NewStage
from tests.e2e.kit import Stage, until
from tests.e2e.organisation import Organisation
from tests.e2e.test_offboarding import ENFORCED, account, hires, provisions
from tests.servers.certificates import Certificates
from tests.servers.postgres import copied
from tests.servers.proxy import Fault, Predicate, Request
from tests.servers.smtp import SmtpServer, running_smtp

pytestmark = pytest.mark.e2e

ADMIN_MAIL = "it@yard.example"
FOUR = ("hana", "ivan", "jule", "lino")
"""One more than three, which the guards always let go."""


async def state(stage: Stage, localpart: str) -> str:
    """Of an account, in a word."""
    found = await account(stage, localpart)
    return "erased" if found["deactivated"] else "locked" if found["locked"] else "active"


async def states(stage: Stage, *localparts: str) -> list[str]:
    return list(await asyncio.gather(*(state(stage, localpart) for localpart in localparts)))


async def becomes(stage: Stage, localpart: str, wanted: str) -> None:
    async def is_so() -> bool:
        return await state(stage, localpart) == wanted

    await until(is_so, f"{localpart} is {wanted}", ENFORCED)


async def queue(stage: Stage) -> dict[str, dict[str, Any]]:
    """Localpart → entry, with how long it has to wait."""
    rows = await stage.fetch("select q.*, due_at - now() as left from aim.queue q")
    return {row["localpart"]: dict(row) for row in rows}


def writes_to(stage: Stage, localpart: str) -> Predicate:
    """Changes of that account by the admin API."""
    return lambda request: request.is_write and request.path.endswith(f"/users/{stage.mxid(localpart)}")


def erasures(request: Request) -> bool:
    return request.is_write and "/deactivate/" in request.path


async def everybody_in(stage: Stage, *uids: str) -> Organisation:
    """These work there too, and everybody has an account and was asked in."""
    hires(stage, *uids)
    await stage.provision()
    return stage.organisation


# -- the homeserver ---------------------------------------------------------------------------------------


async def test_a_homeserver_that_refuses_the_lock_of_one_person(stage: Stage) -> None:
    """The others are locked; that one's time begins when they are, too."""
    people = ("olga.refused", "olaf.refused")
    provisions(stage)
    everybody = await everybody_in(stage, *people)
    refused = writes_to(stage, "olga.refused")
    stage.proxy.fail(refused, times=None, status=403, errcode="M_FORBIDDEN", error="Not this one")
    stage.give(everybody.left(*people))

    failed = await stage.apply(code=1)

    listed = [line for line in failed.out.splitlines() if line.startswith("failed")]
    assert len(listed) == 1, failed
    assert f"lock_account {stage.mxid('olga.refused')}" in listed[0]
    assert "Not this one" in listed[0]
    assert await states(stage, *people) == ["active", "locked"]

    # As if it went on like that for longer than the grace period.
    await stage.fetch(
        "update aim.queue set due_at = now() - interval '1 day' where localpart = $1", people[0]
    )
    await stage.apply(code=1)
    assert await states(stage, *people) == ["active", "locked"]
    stage.proxy.behave()
    await stage.apply()

    assert await states(stage, *people) == ["locked", "locked"]
    assert all(entry["left"] > timedelta(days=29) for entry in (await queue(stage)).values())


# -- being killed -----------------------------------------------------------------------------------------


async def killed_within(stage: Stage, held: Fault, *, lost: bool) -> None:
    """`aim apply`, killed within the held request, which then gets lost or is carried out."""
    command = await stage.start("apply", "--yes")
    await until(lambda: held.reached.is_set() or not command.is_running, "the moment has come")
    assert held.reached.is_set(), await command.end()
    await command.kill()
    under_way = [request for request in stage.proxy.requests if request.status is None]
    target = stage.proxy.target
    if lost:
        stage.proxy.target = "http://127.0.0.1:1"
    held.release.set()
    await until(lambda: all(request.status is not None for request in under_way), "the request has ended")
    stage.proxy.target = target


async def test_killed_right_after_the_queue_and_right_after_the_lock(stage: Stage) -> None:
    """One account at a time: within the second lock the first one is answered, and the second is queued."""
    first, second = people = ("pia.killed", "pola.killed")
    provisions(stage)
    stage.configure(provisioner=stage.config["provisioner"] | {"parallelism": 1})
    everybody = await everybody_in(stage, *people)

    stage.give(everybody.left(*people))
    await killed_within(stage, stage.proxy.hold(writes_to(stage, second)), lost=True)
    assert await states(stage, *people) == ["locked", "active"]
    before = await queue(stage)
    assert set(before) == set(people), "whoever is to be locked is on the queue before"
    await stage.apply()
    assert await states(stage, *people) == ["locked", "locked"]
    after = await queue(stage)
    assert after[first]["due_at"] == before[first]["due_at"]
    assert after[second]["due_at"] >= before[second]["due_at"]

    stage.give(everybody)
    await killed_within(stage, stage.proxy.hold(writes_to(stage, second)), lost=False)
    assert await states(stage, *people) == ["active", "active"]
    await stage.apply()
    assert (await queue(stage), (await stage.plan())["actions"]) == ({}, [])
    assert await states(stage, *people) == ["active", "active"]


async def test_killed_within_an_erasure_it_is_finished_and_forgotten(stage: Stage) -> None:
    provisions(stage)
    everybody = await everybody_in(stage, "quinn.killed")
    stage.give(everybody.left("quinn.killed"))
    await stage.apply()
    await stage.aim("queue", "erase", stage.mxid("quinn.killed"), "--yes")

    await killed_within(stage, stage.proxy.hold(erasures), lost=False)

    assert await state(stage, "quinn.killed") == "erased"
    assert set(await queue(stage)) == {"quinn.killed"}
    await stage.apply()
    assert await queue(stage) == {}
    assert await stage.fetch("select 1 from aim.seen where localpart = 'quinn.killed'") == []


# -- the database -----------------------------------------------------------------------------------------


async def test_a_database_restored_from_yesterday_erases_nobody_early(live_stage: Stage) -> None:
    """Who was back since then, and left again, waits for a full period from now on."""
    stage = live_stage
    provisions(stage)
    everybody = await everybody_in(stage, "rosa.restored")
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        stage.give(everybody.left("rosa.restored"))
        await becomes(stage, "rosa.restored", "locked")
        await daemon.terminate()
    # Yesterday was her last day.
    await stage.fetch("update aim.queue set due_at = now() - interval '1 hour'")
    assert stage.database is not None
    async with copied(stage.database) as yesterday:
        stage.give(everybody)
        async with stage.daemon() as daemon:
            await becomes(stage, "rosa.restored", "active")
            stage.give(everybody.left("rosa.restored"))
            await becomes(stage, "rosa.restored", "locked")
            await daemon.terminate()
        stage.database = yesterday
        stage.configure(database={"url": yesterday})
        async with stage.daemon() as daemon:
            await daemon.says("whoever waits for their erasure waits anew")
            await daemon.says("cycle done")
            await daemon.terminate()
        [entry] = (await queue(stage)).values()
        assert entry["left"] > timedelta(days=29)
        assert await state(stage, "rosa.restored") == "locked"


async def test_an_empty_database_neither_locks_nor_unlocks_nor_erases(stage: Stage) -> None:
    """What Postgres alone knows only a backup restores: who was seen, who waits, whom we have locked."""
    provisions(stage, "0s")
    everybody = await everybody_in(stage, "saul.lost", "sven.lost")
    provisions(stage, "30d")
    stage.give(everybody.left("saul.lost"))
    await stage.apply()
    provisions(stage, "0s")
    await stage.fetch("drop schema aim cascade")
    stage.give(everybody.left("saul.lost", "sven.lost"))
    # Both are in rooms that they have no right to be in, and removing waits for a person in recovery.
    result = await stage.apply(code=3)
    assert "in recovery nothing is removed without approval" in result.out
    assert await states(stage, "saul.lost", "sven.lost") == ["locked", "active"]
    assert await queue(stage) == {}

    stage.give(everybody)
    await stage.apply()
    assert await states(stage, "saul.lost", "sven.lost") == ["locked", "active"]


async def test_two_writers_by_mistake(stage: Stage, new_stage: NewStage) -> None:
    """On one database the second is refused; with one of its own it is in recovery."""
    people = ("tess.twice", "theo.twice")
    provisions(stage, "30d")
    everybody = await everybody_in(stage, *people)
    other = await new_stage(homeserver=stage.homeserver, instance=stage.instance)
    provisions(other, "0s")
    async with stage.daemon() as daemon:
        await daemon.says("cycle done")
        second = await stage.start("run")
        cause, _ = (await second.end()).error()
        assert f"aim run, pid {daemon.pid} on " in cause

        other.give(everybody.left("tess.twice"))
        await other.apply(code=3)
        assert await states(stage, *people) == ["active", "active"]
        stage.give(everybody.left("theo.twice"))
        await becomes(stage, "theo.twice", "locked")
        other.give(everybody)
        await other.aim("apply", "--yes")
        assert await states(stage, *people) == ["active", "locked"]
        assert (await daemon.terminate()).code == 0
    assert (set(await queue(stage)), await queue(other)) == ({"theo.twice"}, {})


# -- time -------------------------------------------------------------------------------------------------


async def test_when_the_clock_jumped_an_erasure_waits_for_a_second_reading(stage: Stage) -> None:
    provisions(stage, "1d")
    everybody = await everybody_in(stage, "uwe.late")
    stage.give(everybody.left("uwe.late"))
    await stage.apply()
    # It is three days later all of a sudden.
    await stage.fetch("update aim.state set clock = now() - interval '3 days'")
    await stage.fetch("update aim.queue set due_at = now() - interval '2 days'")
    for _ in range(2):
        result = await stage.apply()
        assert "1 erasures that are due wait for a second reading, in an hour" in result.out
        assert await state(stage, "uwe.late") == "locked"
    [entry] = (await queue(stage)).values()
    assert isinstance(entry["found_due_at"], datetime)

    # It had been wrong, and is put right: what it said counts for nothing.
    await stage.fetch("update aim.queue set due_at = now() + interval '1 day'")
    await stage.apply()
    [entry] = (await queue(stage)).values()
    assert (entry["found_due_at"], await state(stage, "uwe.late")) == (None, "locked")

    # It was set back by a day: the last reading is of tomorrow.
    await stage.fetch("update aim.queue set due_at = now() - interval '1 minute'")
    await stage.fetch("update aim.state set clock = now() + interval '1 day'")
    await stage.apply()
    assert await state(stage, "uwe.late") == "locked"
    # An hour later it says the same.
    await stage.fetch("update aim.queue set found_due_at = now() - interval '61 minutes'")
    await stage.apply()
    assert await state(stage, "uwe.late") == "erased"


# -- the directory ----------------------------------------------------------------------------------------


def disabled(text: str, *uids: str) -> str:
    """An export in which these, or all, are disabled."""
    names = "|".join(map(re.escape, uids)) or ".*"
    return re.sub(rf"^uid: ({names})$", r"uid: \1\nnsAccountLock: TRUE", text, flags=re.MULTILINE)


async def test_everybody_disabled_is_held_and_nobody_is_locked(stage: Stage) -> None:
    """A few of them is no bad read, and those are locked."""
    provisions(stage)
    everybody = await everybody_in(stage, "vera.disabled")
    stage.write_ldif(disabled(everybody.ldif()))

    result = await stage.apply(code=3)
    assert "locks in the organisation: 13 people within an hour, the limit is 3" in result.out
    assert set(await states(stage, *everybody.people)) == {"active"}
    found = await stage.aim("check")
    guards = [line for line in found.out.splitlines() if "13 × lock_account" in line]
    assert len(guards) == 1, found

    # What was held once is released by a world that no longer asks for it.
    stage.give(everybody)
    await stage.apply()
    stage.write_ldif(disabled(everybody.ldif(), "vera.disabled"))
    await stage.apply()
    assert await state(stage, "vera.disabled") == "locked"
    assert set(await states(stage, *everybody.left("vera.disabled").people)) == {"active"}
    assert (await queue(stage))["vera.disabled"]["reason"] == "disabled in the directory"
    stage.give(everybody)
    await stage.apply()
    assert (await state(stage, "vera.disabled"), await queue(stage)) == ("active", {})
    assert (await stage.plan())["actions"] == []


# -- what people are told ---------------------------------------------------------------------------------


def post(stage: Stage, server: SmtpServer) -> None:
    """Mail goes to that server; people have addresses."""
    transport = {"host": "127.0.0.1", "port": server.port, "secure": False}
    stage.configure(
        mailer={"from": "Yard IT <it@yard.example>", "admins": [ADMIN_MAIL], "transport": transport},
        source=stage.config["source"] | {"attributes": {"name": "displayName", "mail": "mail"}},
    )


def with_mail(organisation: Organisation, uid: str) -> str:
    """The export, with an address for one person."""
    return organisation.ldif().replace(f"uid: {uid}\n", f"uid: {uid}\nmail: {uid}@yard.example\n")


def mails(server: SmtpServer) -> list[tuple[str, str]]:
    """Recipient and subject of each."""
    return [(str(mail["To"]), str(mail["Subject"])) for mail in server.mails]


def body(server: SmtpServer, number: int) -> str:
    part = server.mails[number].get_body(("plain",))
    assert part is not None
    return str(part.get_content())


async def metric(stage: Stage, name: str) -> float:
    url = f"http://127.0.0.1:{stage.homeserver.appservice.port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        lines = (await response.text()).splitlines()
    [value] = [line.split()[-1] for line in lines if line.startswith(f"{name} ")]
    return float(value)


async def test_people_are_told_by_mail_and_each_thing_once(
    live_stage: Stage, certificates: Certificates
) -> None:
    """Welcome, with the link that opens the app; a held plan, in the log, a metric and a mail to the admins;
    locked."""
    stage, newcomer = live_stage, "wanda.mails"
    provisions(stage)
    async with running_smtp(certificates) as server:
        post(stage, server)
        everybody = hires(stage, newcomer)
        stage.write_ldif(with_mail(everybody, newcomer))
        await stage.homeserver.register(*everybody.left(newcomer).people)
        async with stage.daemon() as daemon:
            await daemon.says("the mirror is current")
            await daemon.says("cycle done")
            assert server.mails == [], "those who were there before us know where they are"

            await stage.homeserver.register(newcomer)
            await until(lambda: len(server.mails) == 1, "she is welcomed")
            mxid, name = stage.mxid(newcomer), stage.homeserver.server_name
            link = f"https://mobile.element.io/element-pro/?account_provider={name}&login_hint=mxid:{mxid}"
            assert link in body(server, 0)
            assert server.recipients == [[f"{newcomer}@yard.example"]]

            stage.write_ldif(with_mail(everybody.left(*FOUR), newcomer))
            await daemon.says("locks in the organisation: 4 people within an hour, the limit is 3")
            await until(lambda: len(server.mails) == 2, "the admins are told")
            assert server.recipients[1:] == [[ADMIN_MAIL]]
            digest = (await stage.plan())["digest"]
            assert f"aim approve {digest}" in body(server, 1)
            assert await metric(stage, "aim_held_actions") == 4

            stage.give(everybody.left(newcomer))
            await becomes(stage, newcomer, "locked")
            await until(lambda: len(server.mails) == 3, "she is told where she can be reached")
            stage.write_ldif(with_mail(everybody, newcomer))
            await becomes(stage, newcomer, "active")
            await until(lambda: len(server.mails) == 4, "and once more")
            assert await metric(stage, "aim_held_actions") == 0
            assert (await daemon.terminate()).code == 0
        # Started again, it has nothing to add.
        async with stage.daemon() as daemon:
            await daemon.says("cycle done")
            assert (await daemon.terminate()).code == 0
        her = f"{newcomer}@yard.example"
        assert mails(server) == [
            (her, f"Welcome to {name}: how to sign in"),
            (ADMIN_MAIL, f"aim on {name}: changes wait for your approval"),
            (her, f"Your account on {name} was deactivated"),
            (her, f"Your account on {name} is active again"),
        ]
    assert set(await states(stage, *everybody.people)) == {"active"}
