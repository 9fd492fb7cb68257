"""The real homeserver that the other tests and `aim demo` stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aim.demo.homeserver import DemoSynapse, free_port
from aim.errors import AimError, HomeserverRefused
from tests.servers.synapse import Homeserver, NewSynapse, make_appservice, write_registrations


async def test_an_appservice_acts_as_its_bot_and_as_people(homeserver: Homeserver) -> None:
    await homeserver.register("runner.ann", "runner.bob")
    bot = homeserver.bot_client()
    room_id = await bot.create_room(name="One")
    ann, bob = homeserver.client("runner.ann"), homeserver.client("runner.bob")
    await bot.invite(room_id, ann.mxid)
    await bot.invite(room_id, bob.mxid)
    await ann.join(room_id)

    assert [room["room_id"] for room in await homeserver.rooms()] == [room_id]
    assert await homeserver.members(room_id, "join") == {homeserver.bot, ann.mxid}
    assert await homeserver.members(room_id) == {homeserver.bot, ann.mxid, bob.mxid}
    assert await ann.joined_rooms() == {room_id}
    assert await homeserver.state_content(room_id, "m.room.name") == {"name": "One"}
    assert await homeserver.state_content(room_id, "m.room.topic") is None


async def test_people_can_do_what_their_power_level_allows(homeserver: Homeserver) -> None:
    await homeserver.register("runner.mod", "runner.member")
    bot = homeserver.bot_client()
    moderator, member = homeserver.client("runner.mod"), homeserver.client("runner.member")
    room_id = await bot.create_room(invite=[moderator.mxid, member.mxid])
    await moderator.join(room_id)
    await member.join(room_id)
    with pytest.raises(HomeserverRefused) as refused:
        await moderator.kick(room_id, member.mxid)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")

    await bot.set_power_levels(room_id, {moderator.mxid: 50})
    await moderator.kick(room_id, member.mxid)

    assert await homeserver.members(room_id) == {homeserver.bot, moderator.mxid}


async def test_registering_twice_keeps_the_account(homeserver: Homeserver) -> None:
    await homeserver.register("runner.twice")
    await homeserver.register("runner.twice")
    assert await homeserver.client("runner.twice").joined_rooms() == set()


async def test_a_stopped_server_comes_back_with_its_rooms(new_synapse: NewSynapse) -> None:
    homeserver = await new_synapse()
    assert await homeserver.rooms() == []
    bot = homeserver.bot_client()
    room_id = await bot.create_room(name="Before")
    url, pid = homeserver.base_url, homeserver.server.pid

    await homeserver.server.stop()
    assert homeserver.server.pid is None
    await homeserver.server.start()

    assert homeserver.base_url == url
    assert homeserver.server.pid != pid
    assert await homeserver.state_content(room_id, "m.room.name") == {"name": "Before"}
    homeserver.server.kill()
    await homeserver.server.start()
    assert [room["name"] for room in await homeserver.rooms()] == ["Before"]


async def test_accounts_with_passwords_and_admins(new_synapse: NewSynapse) -> None:
    homeserver = await new_synapse()
    server = homeserver.server
    await server.register("ann", "a long password", displayname="Ann")
    token = await server.login("ann", "a long password")
    profile = await homeserver.request(
        "GET", f"/_matrix/client/v3/profile/{homeserver.mxid('ann')}", token=token
    )
    assert profile["displayname"] == "Ann"
    with pytest.raises(HomeserverRefused):
        await server.login("ann", "another password")
    with pytest.raises(HomeserverRefused):
        await homeserver.request("GET", "/_synapse/admin/v1/rooms", token=token)

    await server.set_admin(homeserver.mxid("ann"), homeserver.admin_token)

    assert (await homeserver.request("GET", "/_synapse/admin/v1/rooms", token=token))["rooms"] == []
    assert server.directory.joinpath("homeserver.yaml").stat().st_mode & 0o077 == 0


async def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    registration = tmp_path / "broken.yaml"
    registration.write_text("{}")
    server = DemoSynapse(tmp_path / "data", "example.test", [registration])
    with pytest.raises(AimError, match="Required string field: 'id'") as failed:
        await server.start()
    assert "ended while it started" in failed.value.message
    assert str(server.log) in failed.value.remedy
    assert server.pid is None


async def test_a_port_in_use_is_said_so(homeserver: Homeserver, tmp_path: Path) -> None:
    port = homeserver.server.port
    with pytest.raises(AimError, match=f"port {port} .* in use"):
        await DemoSynapse(tmp_path, "example.test", port=port).start()


_PARENT = """
import asyncio, sys
from pathlib import Path
from aim.demo.homeserver import DemoSynapse
async def main():
    server = DemoSynapse(Path(sys.argv[1]), "example.test", port=int(sys.argv[2]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_the_server_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path), str(free_port())], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        # A descriptor and not the number: it becomes readable when that very process has ended.
        descriptor = os.pidfd_open(pid)
        try:
            parent.send_signal(signal.SIGKILL)
            assert _ends(descriptor, 20.0)
        finally:
            os.close(descriptor)


def _ends(descriptor: int, seconds: float) -> bool:
    import select

    return bool(select.select([descriptor], [], [], seconds)[0])


async def test_registrations_name_no_more_than_they_need(tmp_path: Path) -> None:
    listener, actor = write_registrations(tmp_path, make_appservice(), "example.test", "http://127.0.0.1:9")
    assert '"users": []' in listener.read_text()
    assert '"url": null' in actor.read_text()
