"""The demo is a journey of its own: it checks every step, and its exit code tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.kit import start_aim

pytestmark = pytest.mark.e2e


async def test_the_demo_goes_as_it_should(tmp_path: Path) -> None:
    command = await start_aim(tmp_path / "none.yaml", [], ["demo"], {})

    ended = await command.end(patience=240)

    assert ended.code == 0, ended
    assert "All as it should be" in ended.out
