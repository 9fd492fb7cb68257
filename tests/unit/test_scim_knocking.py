"""What the log says of wrong tokens: that they come, from where, and not more than once a minute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from aim.bridges.scim import knocking
from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.knocking import Knocking
from aim.bridges.scim.rights import Grant, Rights


class _Later:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == 60
        self.calls.append(call)

    def a_minute(self) -> None:
        due, self.calls = self.calls, []
        for call in due:
            call()


async def _nothing(_: float) -> None:
    pass


def test_the_first_at_once_and_others_together() -> None:
    later = _Later()
    knocks = Knocking(later)
    with capture_logs() as told:
        knocks.came("192.0.2.1")
        assert [entry["event"] for entry in told] == ["a SCIM request with a wrong token"]
        assert told[0]["addresses"] == "192.0.2.1 (1)"
        assert told[0]["log_level"] == "warning"
        assert "put the token in anew" in told[0]["remedy"]
        for address, count in (("192.0.2.1", 3), ("", 2), ("192.0.2.3", 4), ("192.0.2.4", 1), ("::1", 1)):
            for _ in range(count):
                knocks.came(address)
        assert len(told) == 1
        later.a_minute()
        assert told[1]["event"] == "11 SCIM requests with a wrong token"
        assert told[1]["addresses"] == "192.0.2.3 (4), 192.0.2.1 (3), an unknown address (2), 2 more"
        later.a_minute()
        assert len(told) == 2
        assert later.calls == []
        knocks.came("::1")
        assert len(told) == 3


def test_addresses_without_end_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "_MOST", 2)
    later = _Later()
    knocks = Knocking(later)
    with capture_logs() as told:
        for number in range(9):
            knocks.came(f"192.0.2.{number}")
        later.a_minute()
    assert told[1]["addresses"] == "others (6), 192.0.2.1 (1), 192.0.2.2 (1)"


async def test_only_wrong_tokens_are_told_and_never_the_token() -> None:
    later = _Later()
    rights = Rights([Grant("right-token", ["*:*"])], wrong=Knocking(later).came, sleep=_nothing)
    with capture_logs() as told:
        await rights.access("Bearer right-token", "192.0.2.1")
        for header in (None, "Basic abc", "Bearer"):
            with pytest.raises(ScimError):
                await rights.access(header, "192.0.2.1")
        assert told == []
        with pytest.raises(ScimError):
            await rights.access("Bearer wrong-token", "192.0.2.1")
    assert len(told) == 1
    assert "wrong-token" not in str(told)
