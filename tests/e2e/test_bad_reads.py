"""Journey: the directory can't be read, or is not all there. Nobody is touched."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage

pytestmark = pytest.mark.e2e


async def test_a_bad_read_is_an_error_and_removes_nobody(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    whole = stage.organisation.ldif()
    middle = whole.index("uid=ivan")
    stage.proxy.forget()
    cycles = await stage.cycles()

    for what, text in {
        "in the middle of a line": whole[: middle + 4],
        "in the middle of a record": whole[: whole.index("\n", middle) + 1],
        "empty": "",
        "no users": whole[: whole.index("dn: uid=")],
        "vanished": None,
    }.items():
        if text is None:
            stage.ldif.unlink()
        else:
            stage.write_ldif(text)

        cause, remedy = (await stage.aim("apply", "--yes")).error()

        assert str(stage.ldif) in cause or "directory is empty" in cause, what
        assert remedy, what
        assert stage.proxy.writes == [], what

    assert await stage.cycles() == cycles
    stage.write_ldif(whole)
    assert (await stage.plan())["actions"] == []
    await stage.assert_follows()
