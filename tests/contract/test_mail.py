"""The postman and a real SMTP server: TLS, logins, refusals, kills; nobody gets a mail twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from aim.errors import AimError, ConfigError
from aim.notify import smtp
from aim.notify.postman import Postman, pause_after
from aim.notify.settings import MailSettings, SmtpSettings
from aim.notify.smtp import try_server
from tests.servers.certificates import Certificates
from tests.servers.smtp import SmtpServer, running_smtp
from tests.unit.letters import Letters, letter

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Clock:
    """Time that passes only while the postman waits."""

    def __init__(self) -> None:
        self.now = START
        self.waits: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    async def timer(self, event: asyncio.Event, seconds: float | None) -> None:
        if seconds is None:
            await event.wait()
            return
        self.waits.append(seconds)
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)


class Post:
    """A queue, its postman and its clock."""

    def __init__(self, settings: SmtpSettings) -> None:
        self.letters = Letters()
        self.clock = Clock()
        mail = MailSettings(sender="Example IT <it@example.com>", smtp=settings, server_name="example.com")
        self.postman = Postman(mail, self.letters, self.clock, self.clock.timer)

    async def run_until(self, is_done: Callable[[], bool]) -> None:
        """Runs the postman until something is so; his timer is where it is looked at."""
        stop = asyncio.Event()
        timer = self.clock.timer

        async def watched(event: asyncio.Event, seconds: float | None) -> None:
            if is_done():
                stop.set()
            await timer(event, seconds)

        self.postman._timer = watched
        await asyncio.wait_for(self.postman.run(stop), 30)

    async def run_dry(self) -> None:
        """Runs him until nothing waits."""
        await self.run_until(lambda: not {"waiting", "sending"} & set(self.letters.statuses()))


@pytest.fixture
async def server(certificates: Certificates) -> AsyncIterator[SmtpServer]:
    async with running_smtp(certificates) as running:
        yield running


@pytest.fixture
async def post(server: SmtpServer) -> Post:
    return Post(server.settings())


async def test_letters_go_over_one_connection_each_once(server: SmtpServer, post: Post) -> None:
    await post.letters.post([letter("one"), letter("two", ["a@example.com", "b@example.com"])], START)
    await post.run_dry()
    assert post.letters.statuses() == ["sent", "sent"]
    assert [mail["Subject"] for mail in server.mails] == ["Welcome one", "Welcome two"]
    assert server.recipients == [["mia@example.com"], ["a@example.com", "b@example.com"]]
    assert server.connections == 1


async def test_a_line_that_begins_with_a_dot_arrives_as_it_was(server: SmtpServer, post: Post) -> None:
    await post.letters.post([letter(text="one\n.\n..two\n.three\n")], START)
    await post.run_dry()
    body = server.mails[0].get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n") == "one\n.\n..two\n.three\n"


@pytest.mark.parametrize("way", ["tls", "start_tls"])
async def test_mail_and_password_go_over_tls(certificates: Certificates, way: str) -> None:
    secure = way == "tls"
    async with running_smtp(certificates, tls=secure, start_tls=not secure, users={"aim": "grüße"}) as server:
        settings = server.settings(secure=secure, start_tls=not secure, user="aim", password="grüße")
        await try_server(settings)
        post = Post(settings)
        await post.letters.post([letter()], START)
        await post.run_dry()
        assert server.were_secure == [True]


@pytest.mark.parametrize("way", ["tls", "start_tls"])
async def test_a_certificate_of_somebody_else_is_not_trusted(
    certificates: Certificates, other_certificates: Certificates, way: str
) -> None:
    secure = way == "tls"
    async with running_smtp(certificates, tls=secure, start_tls=not secure) as server:
        settings = server.settings(secure=secure, start_tls=not secure, ca_cert=other_certificates.ca)
        with pytest.raises(AimError, match="can't be trusted") as caught:
            await try_server(settings)
    assert "mailer.transport.ca_cert" in caught.value.remedy


async def test_a_wrong_password_is_said_and_keeps_the_mail(certificates: Certificates) -> None:
    async with running_smtp(certificates, tls=True, users={"aim": "right"}) as server:
        settings = server.settings(secure=True, user="aim", password="wr0ng")
        with pytest.raises(AimError, match="does not let us log in") as caught:
            await try_server(settings)
        assert "mailer.transport.auth.pass" in caught.value.remedy
        assert "wr0ng" not in caught.value.message + caught.value.remedy
        post = Post(settings)
        await post.letters.post([letter()], START)
        await post.run_until(lambda: len(post.clock.waits) >= 3)
        assert post.letters.statuses() == ["waiting"]
        assert post.letters.rows[1].queued.attempts == 0
        assert post.clock.waits[:3] == [60, 120, 240]


async def test_a_password_is_not_sent_to_another_machine_in_the_clear(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "is_loopback", lambda host: False)
    async with running_smtp(certificates, users={"aim": "secret"}) as server:
        with pytest.raises(AimError, match="unencrypted"):
            await try_server(server.settings(user="aim", password="secret"))


async def test_starttls_is_used_with_another_machine_that_offers_it(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "is_loopback", lambda host: False)
    async with running_smtp(certificates, start_tls=True) as server:
        post = Post(server.settings())
        await post.letters.post([letter()], START)
        await post.run_dry()
        assert server.were_secure == [True]


async def test_starttls_that_is_demanded_and_not_offered_is_an_error(server: SmtpServer) -> None:
    with pytest.raises(AimError, match="offers no STARTTLS"):
        await try_server(server.settings(start_tls=True))


async def test_a_server_without_tls_on_the_port_is_named(server: SmtpServer) -> None:
    with pytest.raises(AimError, match="does not answer with TLS") as caught:
        await try_server(server.settings(secure=True))
    assert "secure: false" in caught.value.remedy


async def test_a_login_where_there_is_none_is_said(server: SmtpServer) -> None:
    with pytest.raises(AimError, match="log"):
        await try_server(server.settings(user="aim", password="secret"))


async def test_an_unusable_authority_is_said(server: SmtpServer) -> None:
    with pytest.raises(ConfigError, match=r"mailer\.transport\.ca_cert .*gone\.pem"):
        await try_server(server.settings(ca_cert=server.certificates.ca.with_name("gone.pem")))


async def test_a_server_that_was_down_gets_everything_when_it_is_up(certificates: Certificates) -> None:
    async with running_smtp(certificates) as server:
        port = server.port
    post = Post(server.settings())
    with pytest.raises(AimError, match="can't be reached"):
        await try_server(server.settings())
    await post.letters.post([letter("one"), letter("two")], START)
    await post.run_until(lambda: len(post.clock.waits) >= 100)
    assert post.clock.now - START > timedelta(days=3)
    assert post.letters.statuses() == ["waiting", "waiting"]
    async with running_smtp(certificates, port=port) as server:
        await post.run_dry()
        assert len(server.mails) == 2
    assert post.letters.statuses() == ["sent", "sent"]


async def test_who_posts_does_not_make_a_server_that_is_down_be_asked_at_once(
    certificates: Certificates,
) -> None:
    async with running_smtp(certificates) as server:
        pass
    post = Post(server.settings())
    await post.letters.post([letter("one")], START)
    assert await post.postman._round() == 60
    await post.letters.post([letter("two")], START)
    post.clock.now += timedelta(seconds=20)
    assert await post.postman._round() == 40
    assert post.postman._failures == 1


async def test_what_is_refused_for_now_is_accepted_once(server: SmtpServer, post: Post) -> None:
    server.refuse["mia@example.com"] = ["451 4.7.1 greylisted", "450 4.2.0 mailbox busy"]
    await post.letters.post([letter("one"), letter("two", ["bob@example.com"])], START)
    await post.run_dry()
    assert post.letters.statuses() == ["sent", "sent"]
    assert [mail["Subject"] for mail in server.mails] == ["Welcome two", "Welcome one"]
    assert post.clock.waits == [60, 120]


async def test_content_that_is_refused_for_now_is_accepted_once(server: SmtpServer, post: Post) -> None:
    server.answers = ["452 4.3.1 disk full"]
    await post.letters.post([letter()], START)
    await post.run_dry()
    assert post.letters.statuses() == ["sent"]
    assert len(server.mails) == 1


async def test_what_is_refused_for_now_for_three_days_is_given_up(server: SmtpServer, post: Post) -> None:
    server.refuse["mia@example.com"] = ["450 4.2.0 later"] * 200
    await post.letters.post([letter()], START)
    await post.run_dry()
    assert post.letters.statuses() == ["given_up"]
    assert post.letters.errors() == ["the server does not take it (450 4.2.0), for three days"]
    assert timedelta(days=3) <= post.clock.now - START < timedelta(days=3, hours=2)


@pytest.mark.parametrize("stage", ["recipient", "content"])
async def test_what_is_refused_for_good_is_given_up_and_the_rest_goes_on(
    server: SmtpServer, post: Post, stage: str
) -> None:
    if stage == "recipient":
        server.refuse["mia@example.com"] = ["550 5.1.1 <mia@example.com> no such user"]
    else:
        server.answers = ["554 5.7.1 <mia@example.com> looks like spam"]
    await post.letters.post([letter("one"), letter("two")], START)
    with structlog.testing.capture_logs() as logs:
        await post.run_dry()
    assert post.letters.statuses() == ["given_up", "sent"]
    assert len(server.mails) == 1
    assert server.connections == 1
    assert "5.1.1" in post.letters.errors()[0] or "5.7.1" in post.letters.errors()[0]
    assert_private(logs)


def assert_private(logs: object) -> None:
    """No address and no subject above debug."""
    assert isinstance(logs, list)
    told = [line for line in logs if line["log_level"] != "debug"]
    assert told
    assert not [line for line in told if "mia" in str(line) or "Welcome" in str(line)]


async def test_some_recipients_are_enough(server: SmtpServer, post: Post) -> None:
    server.refuse["mia@example.com"] = ["550 5.1.1 no such user"]
    await post.letters.post([letter("one", ["mia@example.com", "mia.stone@example.com"])], START)
    with structlog.testing.capture_logs() as logs:
        await post.run_dry()
    assert server.recipients == [["mia.stone@example.com"]]
    assert post.letters.statuses() == ["sent"]
    assert [line["refused"] for line in logs if line["log_level"] == "warning"] == [1]
    assert_private(logs)


async def test_a_connection_lost_before_the_content_sends_again(server: SmtpServer, post: Post) -> None:
    server.refuse["mia@example.com"] = ["drop"]
    await post.letters.post([letter()], START)
    await post.run_dry()
    assert post.letters.statuses() == ["sent"]
    assert len(server.mails) == 1


async def test_a_connection_lost_after_the_content_does_not_send_again(
    server: SmtpServer, post: Post
) -> None:
    server.answers = ["drop"]
    await post.letters.post([letter("one"), letter("two")], START)
    await post.run_dry()
    assert post.letters.statuses() == ["given_up", "sent"]
    assert "it may have been sent, or not" in post.letters.errors()[0]
    assert [mail["Subject"] for mail in server.mails] == ["Welcome one", "Welcome two"]


async def test_a_server_that_takes_few_mails_over_one_connection_gets_another(
    server: SmtpServer, post: Post
) -> None:
    server.most_mails = 2
    await post.letters.post([letter(f"{number}") for number in range(5)], START)
    await post.run_dry()
    assert post.letters.statuses() == ["sent"] * 5
    assert len(server.mails) == 5
    assert server.connections == 3
    assert sum(post.clock.waits) == 0


@pytest.mark.parametrize("stage", ["recipient", "data", "content"])
async def test_a_server_that_has_no_time_for_us_is_given_some(
    server: SmtpServer, post: Post, stage: str
) -> None:
    """421 ends the connection (RFC 5321, 3.8); for what was the first over it, that is no reason to hurry."""
    busy = "421 4.3.2 try again later"
    if stage == "recipient":
        server.refuse["mia@example.com"] = [busy] * 5
    elif stage == "data":
        server.data = [busy] * 5
    else:
        server.answers = [busy] * 5
    await post.letters.post([letter("one"), letter("two", ["bob@example.com"])], START)
    await post.run_dry()
    assert post.letters.statuses() == ["sent", "sent"]
    assert sorted(str(mail["Subject"]) for mail in server.mails) == ["Welcome one", "Welcome two"]
    assert post.clock.now - START >= timedelta(minutes=1 + 2 + 4)
    assert server.connections < 15


async def test_a_server_that_has_no_time_for_three_days(server: SmtpServer, post: Post) -> None:
    server.refuse["mia@example.com"] = ["421 4.3.2 try again later"] * 500
    await post.letters.post([letter()], START)
    await post.run_dry()
    assert post.letters.statuses() == ["given_up"]
    assert timedelta(days=3) <= post.clock.now - START < timedelta(days=3, hours=2)


async def test_what_was_under_way_at_a_kill_is_not_sent_again(server: SmtpServer, post: Post) -> None:
    await post.letters.post([letter("one"), letter("two")], START)
    assert await post.letters.take(START) is not None
    with structlog.testing.capture_logs() as logs:
        await post.run_dry()
    assert post.letters.statuses() == ["given_up", "sent"]
    assert [mail["Subject"] for mail in server.mails] == ["Welcome two"]
    assert [line["number"] for line in logs if line["log_level"] == "error"] == [1]


async def test_what_was_sent_is_recorded_however_long_the_database_is_away(
    server: SmtpServer, post: Post
) -> None:
    await post.letters.post([letter()], START)
    post.letters.broken = 3
    await post.run_dry()
    assert post.letters.statuses() == ["sent"]
    assert len(server.mails) == 1
    assert post.clock.waits == [30, 30, 30]


async def test_a_letter_that_is_posted_wakes_him(server: SmtpServer, post: Post) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(post.postman.run(stop))
    await asyncio.sleep(0)
    await post.letters.post([letter()], START)
    post.postman.wake()
    async with asyncio.timeout(30):
        await post.letters.ended.wait()
        stop.set()
        await running
    assert len(server.mails) == 1


async def test_an_address_that_is_not_ascii_is_written_to(server: SmtpServer, post: Post) -> None:
    await post.letters.post([letter(recipients=["jürgen@example.com"])], START)
    await post.run_dry()
    assert server.recipients == [["jürgen@example.com"]]


async def test_a_letter_that_no_mail_can_be_made_of_stops_nobody(server: SmtpServer, post: Post) -> None:
    await post.letters.post([replace(letter("one"), subject="a\r\nBcc: x@example.com"), letter("two")], START)
    await post.run_dry()
    assert post.letters.statuses() == ["given_up", "sent"]
    assert [mail["Bcc"] for mail in server.mails] == [None]


def test_pauses_grow_to_an_hour() -> None:
    assert [pause_after(n) // timedelta(minutes=1) for n in (1, 2, 3, 4, 5, 6, 7, 8, 5000)] == [
        *(1, 2, 4, 8, 16, 32, 60, 60, 60)
    ]
