"""After a rejected login the server is left alone, longer each time: an account must not be locked by us."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aim.bridges.ldap.faults import LoginRefused
from aim.bridges.ldap.patience import Patience
from aim.errors import SourceUnavailable

START = datetime(2030, 1, 1, tzinfo=UTC)


class Server:
    """Looked at by a Patience with a clock of its own."""

    def __init__(self) -> None:
        self.now = START
        self.patience = Patience(lambda: self.now)
        self.error: Exception | None = LoginRefused("refused", "Check it.")
        self.asked: list[int] = []
        """The minutes at which the server was asked."""

    def look(self, *, again: bool = True) -> None:
        with self.patience.kept(again=again):
            self.asked.append((self.now - START) // timedelta(minutes=1))
            if self.error is not None:
                raise self.error

    def look_every_minute(self, minutes: int) -> list[int]:
        """Every look is refused, whether the server is asked or not."""
        for _ in range(minutes):
            with pytest.raises(LoginRefused, match="refused"):
                self.look()
            self.now += timedelta(minutes=1)
        return self.asked


def test_the_pauses_grow_up_to_a_quarter_of_an_hour() -> None:
    assert Server().look_every_minute(70) == [0, 3, 9, 21, 36, 51, 66]


def test_the_time_of_the_next_try_is_said() -> None:
    server = Server()
    for second in (0, 100):
        server.now = START + timedelta(seconds=second)
        with pytest.raises(LoginRefused) as caught:
            server.look()
        assert caught.value.message == "refused"
        assert caught.value.remedy.startswith("Check it. ")
        assert "the next try is at 00:03:00 UTC" in caught.value.remedy
    assert server.asked == [0]


def test_who_does_not_ask_again_is_told_nothing_of_a_next_try() -> None:
    with pytest.raises(LoginRefused) as caught:
        Server().look(again=False)
    assert caught.value.remedy == "Check it."


def test_a_login_that_succeeds_ends_it() -> None:
    server = Server()
    server.look_every_minute(9)
    server.error = None
    server.look()
    server.error = LoginRefused("refused")
    server.asked.clear()
    assert server.look_every_minute(4) == [9, 12]


def test_other_errors_are_tried_again_at_once_and_end_nothing() -> None:
    server = Server()
    server.look_every_minute(3)
    server.error = SourceUnavailable("down")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="down"):
            server.look()
    server.error = LoginRefused("refused")
    server.asked.clear()
    assert server.look_every_minute(7) == [3, 9]


def test_a_clock_that_is_put_back_makes_nobody_wait_for_it() -> None:
    server = Server()
    with pytest.raises(LoginRefused):
        server.look()
    server.now -= timedelta(days=1)
    server.error = None
    server.look()
    assert len(server.asked) == 2
