"""`aim queue` and `aim rebind --by-localpart` as they are typed, over a real Postgres and an LDIF file."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aim.directory.roster import Roster
from aim.ports import StoredAccount
from aim.store import RecorderStore
from aim.store.recorded import open_recorded
from aim.store.recorder import open_recorder
from aim.world.accounts import Account
from aim.world.recorded import Queued, Recorded, Seen

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)
EVAN = "@evan:example.com"


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Aim:
    """The command line, with a configuration of its own."""

    def __init__(self, directory: Path, dsn: str) -> None:
        self._dsn = dsn
        self._file = directory / "config.yaml"
        self._ldif = directory / "people.ldif"
        self.people({f"id-{name}": name for name in ("ann", "bob", "cid", "dan")})
        self.configure()

    def configure(self, **more: Any) -> None:
        config = {
            "homeserver": {"url": "http://127.0.0.1:1", "server_name": "example.com"},
            "appservice": {"id": "aim", "as_token": "as-secret", "hs_token": "hs-secret"},
            "database": {"url": self._dsn},
            "source": {"type": "ldif", "path": str(self._ldif)},
            "userProvisioner": {"deprovisioning": {"enabled": True, "soft_delete_period": "12d"}},
            **more,
        }
        self._file.write_text(json.dumps(config), encoding="utf-8")

    def people(self, ids: Mapping[str, str]) -> None:
        """Who is in the directory: id → uid."""
        self._ldif.write_text(
            "".join(
                f"dn: uid={uid},dc=x\nobjectClass: person\nuid: {uid}\nentryUUID: {id_}\n\n"
                for id_, uid in ids.items()
            )
        )

    async def __call__(self, *arguments: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-m", "aim", *arguments, "--config", str(self._file)),
            env={**os.environ, "SUDO_USER": "eva"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = (text.decode() for text in await process.communicate())
        assert process.returncode is not None
        assert "Traceback" not in out + err
        return Said(process.returncode, out, err)

    async def recorded(self) -> Recorded:
        async with open_recorded(self._dsn) as reader:
            return await reader.load(Roster(), datetime.now(UTC))

    async def entry(self, name: str = "evan") -> Queued:
        return (await self.recorded()).queue[f"id-{name}"]


def entry(name: str, **more: Any) -> Queued:
    made = Queued(
        user_id=f"id-{name}",
        localpart=name,
        queued_at=NOW - 10 * DAY,
        due_at=NOW + 20 * DAY,
        reason="no longer in the directory",
    )
    return replace(made, **more)


@pytest.fixture
async def recorder(dsn: str) -> AsyncIterator[RecorderStore]:
    """The writer, who runs all the time beside the commands."""
    async with open_recorder(dsn) as store:
        yield store


@pytest.fixture
async def aim(tmp_path: Path, dsn: str, recorder: RecorderStore) -> Aim:
    await recorder.enqueue([entry("evan"), entry("zoe", due_at=NOW + 3 * DAY)])
    return Aim(tmp_path, dsn)


def errors(said: Said) -> tuple[str, str]:
    """The line of cause and the line of remedy."""
    assert (said.code, said.out) == (1, "")
    cause, remedy = said.err.splitlines()
    return cause, remedy


async def test_the_list_and_what_falls_due(aim: Aim) -> None:
    everybody, soon, nobody, as_json = await asyncio.gather(
        aim("queue", "list"),
        aim("queue", "list", "--within", "7d"),
        aim("queue", "list", "--within", "1h"),
        aim("queue", "list", "--json"),
    )
    assert [line.split()[0] for line in everybody.out.splitlines()] == ["who", "@zoe:example.com", EVAN]
    assert [line.split()[0] for line in soon.out.splitlines()] == ["who", "@zoe:example.com"]
    assert nobody == (0, "nobody falls due within that time\n", "")
    assert [one["mxid"] for one in json.loads(as_json.out)["queue"]] == ["@zoe:example.com", EVAN]
    assert {said.code for said in (everybody, soon, as_json)} == {0}


async def test_nobody_waits_where_there_is_no_database_yet(tmp_path: Path, dsn: str) -> None:
    aim = Aim(tmp_path, dsn)
    assert await aim("queue", "list") == (0, "nobody waits\n", "")
    cause, remedy = errors(await aim("queue", "restore", "evan"))
    assert "nothing to decide on yet" in cause
    assert "aim apply" in remedy


async def test_a_person_is_held_released_erased_and_restored(aim: Aim, recorder: RecorderStore) -> None:
    held = await aim("queue", "hold", EVAN)
    assert (held.code, held.err) == (0, "")
    assert "stays locked" in held.out
    assert (await aim.entry()).held_by == "eva"
    assert "held by eva" in errors(await aim("queue", "erase", EVAN, "--yes"))[0]

    assert (await aim("queue", "release", "evan")).code == 0
    cause, remedy = errors(await aim("queue", "erase", EVAN))
    assert "can't be undone" in cause
    assert "--yes" in remedy
    assert (await aim.entry()).erase_by is None

    erased = await aim("queue", "erase", EVAN, "--yes")
    assert re.search(r"next cycle.*\n.*aim apply", erased.out)
    recorded = await aim.recorded()
    assert recorded.queue["id-evan"].erase_by == "eva"
    assert set(recorded.approvals) == {f"erase_account {EVAN}"}

    restored = await aim("queue", "restore", EVAN)
    assert "aim apply" in restored.out
    recorded = await aim.recorded()
    assert (recorded.queue["id-evan"].restored_by, recorded.approvals) == ("eva", {})
    assert recorded.queue["id-zoe"] == entry("zoe", due_at=NOW + 3 * DAY)
    assert await recorder.decisions() == 4


async def test_a_restored_person_is_released_to_wait_again(aim: Aim) -> None:
    await aim("queue", "restore", EVAN)
    listed = (await aim("queue", "list")).out
    assert re.search(r"@evan:example.com  \S+ \S+ UTC  - +restored by eva", listed)
    assert "aim queue release @evan:example.com" in errors(await aim("queue", "restore", EVAN))[1]

    released = await aim("queue", "release", EVAN)

    assert (released.code, released.err) == (0, "")
    assert re.search(r"locked in the next cycle.*\n.*aim apply", released.out)
    found = await aim.entry()
    assert found.restored_by is None
    assert found.due_at >= NOW + 12 * DAY


async def test_nobody_is_due_within_a_day_by_reschedule_alone(aim: Aim) -> None:
    aim.configure(userProvisioner={"deprovisioning": {"enabled": True, "soft_delete_period": "1d"}})
    cause, remedy = errors(await aim("queue", "reschedule", "--all"))
    assert cause.startswith("error: 2 of those who wait would be due within a day")
    assert "--yes" in remedy
    assert await aim.entry() == entry("evan")
    assert (await aim("queue", "reschedule", "--all", "--yes")).code == 0
    assert (await aim.entry()).due_at == NOW - 9 * DAY


async def test_why_somebody_is_not_on_the_queue(aim: Aim, recorder: RecorderStore) -> None:
    await recorder.record_seen([Seen("id-ann", "ann", False, NOW, None)], (), "ldif")
    await recorder.record_held(["lock_account @bob:example.com"])
    active, held = await asyncio.gather(
        aim("queue", "erase", "ann", "--yes"), aim("queue", "restore", "@bob:example.com")
    )
    assert "they were in the directory when a cycle last looked" in errors(active)[0]
    assert "a guard holds the lock" in errors(held)[0]


async def test_the_mail_for_somebody_who_left_is_of_their_account(
    aim: Aim, recorder: RecorderStore, tmp_path: Path
) -> None:
    aim.configure(mailer={"from": "it@example.com", "transport": {"host": "smtp.example.com"}})
    account = Account("evan", "Evan Berg", ("evan.berg@example.com",), locked=True)
    await recorder.accounts.record([StoredAccount(account)])

    said = await aim("mail", "preview", "deactivated", "evan", "--out", str(tmp_path))

    assert (said.code, said.err) == (0, "")
    assert "evan.berg@example.com" in (tmp_path / "deactivated.eml").read_text()
    text = (tmp_path / "deactivated.txt").read_text()
    assert "Evan Berg" in text
    assert f"{NOW + 20 * DAY:%Y-%m-%d}" in text
    assert "nor an account" in errors(await aim("mail", "preview", "deactivated", "nobody"))[0]


async def test_only_when_told_so_does_the_time_shrink(aim: Aim) -> None:
    assert "as before" not in (await aim("queue", "reschedule", EVAN)).out
    assert (await aim.entry()).due_at == NOW + 2 * DAY
    assert (await aim.entry("zoe")).due_at == NOW + 3 * DAY
    both = await aim("queue", "reschedule", "--all")
    assert len(both.out.splitlines()) == 2
    assert (await aim.entry("zoe")).due_at == NOW + 2 * DAY


async def test_mistakes_are_a_line_of_cause_and_a_line_of_remedy(aim: Aim) -> None:
    said = await asyncio.gather(
        aim("queue", "hold", "evn"),
        aim("queue", "hold", "@evan:example.org"),
        aim("queue", "list", "--within", "soon"),
        aim("queue", "reschedule"),
        aim("queue", "reschedule", "evan", "--all"),
        aim("queue", "restor", "evan"),
        aim("rebind", "ann"),
        aim("rebind", "ann", "bob", "--by-localpart"),
    )
    found = [errors(one) for one in said]
    assert found[0][1] == f"did you mean {EVAN}?"
    for (cause, _), expected in zip(
        found,
        (
            "not on the queue",
            "another homeserver",
            "no time",
            "--all",
            "--all",
            "restor",
            "two names",
            "everybody",
        ),
        strict=True,
    ):
        assert expected in cause


async def test_it_is_said_if_nobody_is_erased_anyway(aim: Aim) -> None:
    aim.configure(userProvisioner={})
    for arguments in (("list",), ("restore", EVAN)):
        said = await aim("queue", *arguments)
        assert said.code == 0
        assert "deprovisioning.enabled is not set" in said.out + said.err


@pytest.fixture
async def switched(aim: Aim, recorder: RecorderStore) -> Aim:
    """All had other ids before, and one of them waits in the queue."""
    names = "ann", "bob", "cid", "dan"
    await recorder.record_seen([Seen(f"old-{name}", name, False, NOW, None) for name in names], (), "ldap")
    await recorder.enqueue([entry("ann", user_id="old-ann")])
    return aim


async def test_a_switch_of_source_is_settled_by_localpart(switched: Aim) -> None:
    cause, remedy = await _no_terminal(switched)
    assert "no terminal" in cause
    assert remedy == "add --yes"
    assert set((await switched.recorded()).seen) == {"old-ann", "old-bob", "old-cid", "old-dan"}

    said = await switched("rebind", "--by-localpart", "--yes")

    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-1] == "4 users are known by their new ids"
    recorded = await switched.recorded()
    assert recorded.source == "ldif"
    assert {user.id: user.first_seen for user in recorded.seen.values()} == {
        f"id-{name}": NOW for name in ("ann", "bob", "cid", "dan")
    }
    assert set(recorded.queue) == {"id-ann", "id-evan", "id-zoe"}


async def _no_terminal(aim: Aim) -> tuple[str, str]:
    said = await aim("rebind", "--by-localpart")
    assert said.code == 1
    cause, remedy = said.err.splitlines()
    return cause, remedy


async def test_a_source_without_most_of_them_is_refused(switched: Aim) -> None:
    switched.people({"id-new": "new"})
    before = (await switched.recorded()).seen

    refused = await switched("rebind", "--by-localpart", "--yes")

    assert refused.code == 3
    cause, remedy = refused.err.splitlines()
    assert cause == "error: 4 of 4 known users are missing from the new source: nothing is recorded"
    assert "--even-missing" in remedy
    assert (await switched.recorded()).seen == before
    assert (await switched("rebind", "--by-localpart", "--yes", "--even-missing")).code == 0
