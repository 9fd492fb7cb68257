"""Fixtures for all tests, and the one rule that holds everywhere: no test talks to another machine."""

from __future__ import annotations

import ipaddress
import sys

pytest_plugins = [
    "tests.servers.certificates",
    "tests.servers.graph",
    "tests.servers.hostile",
    "tests.servers.mas",
    "tests.servers.proxy",
    "tests.servers.samba",
    "tests.servers.slapd",
    "tests.servers.synapse",
]


def _only_loopback(event: str, args: tuple[object, ...]) -> None:
    """An audit hook (PEP 578): sees every connection of this process, whichever library makes it."""
    if event != "socket.connect":
        return
    address = args[1]
    if not isinstance(address, tuple) or _is_loopback(str(address[0])):
        return
    raise RuntimeError(f"tests may not connect to another machine: {address!r}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def pytest_configure() -> None:
    # There is no way to take a hook off again, and no need.
    sys.addaudithook(_only_loopback)
