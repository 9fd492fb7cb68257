"""What servers answer becomes one line of cause and one of remedy."""

from __future__ import annotations

import pytest
from ldap3.core.results import RESULT_CODES

from aim.bridges.ldap import faults
from aim.bridges.ldap.ber import Result
from aim.errors import SourceInvalid, SourceUnavailable

URI = "ldap://ldap.example.com"


@pytest.mark.parametrize("code", [*sorted(set(RESULT_CODES) - {0}), 9999])
def test_every_result_has_a_cause_and_a_remedy(code: int) -> None:
    result = Result(code, "dc=example,dc=com", "first\nsecond\x1b[31m", ("ldap://other\n",), 0)
    error = faults.of_result(result, URI, "reading x", "ou=x")
    assert error.message.startswith(URI)
    assert error.remedy.endswith(".")
    assert (error.message + error.remedy).isprintable()


@pytest.mark.parametrize("code", sorted(set(RESULT_CODES) - {0}))
def test_only_what_may_pass_by_itself_is_tried_again(code: int) -> None:
    error = faults.of_result(Result(code, "", "", (), 0), URI, "reading x")
    assert type(error) is (SourceUnavailable if code in {1, 51, 52} else SourceInvalid)


def test_what_a_server_says_is_cut_to_a_bearable_length() -> None:
    assert faults.told("x" * 5000) == "x" * 200 + "…"
    assert faults.told(" a\r\n\tb\x00 ") == "a b"


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ("AcceptSecurityContext error, data 52e, v2580\x00", "wrong password"),
        ("AcceptSecurityContext error, data 0775, v2580", "locked"),
        ("AcceptSecurityContext error, data fff, v2580", "wrong name or password"),
        ("", "wrong name or password"),
    ],
)
def test_a_refused_login_is_explained(message: str, meaning: str) -> None:
    error = faults.of_result(Result(49, "", message, (), 0), URI, "logging in")
    assert meaning in error.message
    # Active Directory has no such rules.
    assert ("`by anonymous auth` on userPassword" in error.remedy) is (not message)
