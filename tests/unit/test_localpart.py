"""Localparts come out as Synapse itself makes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synapse.types import map_username_to_mxid_localpart

from aim.directory.localpart import localpart_of


@pytest.mark.parametrize(
    ("username", "localpart"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("a.b-c_d/e+f", "a.b-c_d/e+f"),
        ("jane doe", "jane=20doe"),
        ("a=b", "a=3db"),
        ("_bot", "=5fbot"),
        ("__x", "=5f_x"),
        ("müller", "m=c3=bcller"),
        ("MÜLLER", "m=c3=9cller"),
        ("\u212a", "=e2=84=aa"),  # Kelvin sign: its lower case is the letter k, but only as text
        ("evan@example.com", "evan=40example.com"),
        ("pc1$", "pc1=24"),
        ("", ""),
        ("a\n", "a=0a"),
    ],
)
def test_table(username: str, localpart: str) -> None:
    assert localpart_of(username) == localpart


@given(st.text() | st.text(alphabet="aZ_=.-/+ 0ü"))
def test_like_synapse(username: str) -> None:
    try:
        expected = map_username_to_mxid_localpart(username)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            localpart_of(username)
    else:
        assert localpart_of(username) == expected
