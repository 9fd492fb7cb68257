"""The guard of `conftest` against tests that talk to other machines."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("2001:db8::1", 443, 0, 0), ("example.com", 80)])
def test_another_machine_is_refused(address: tuple[object, ...]) -> None:
    # Announces a connection without making one.
    with pytest.raises(RuntimeError, match="another machine"):
        sys.audit("socket.connect", None, address)


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 443), ("::1", 443, 0, 0), ("localhost", 80), "/run/some.socket"]
)
def test_this_machine_is_not(address: object) -> None:
    sys.audit("socket.connect", None, address)
