"""Display names and e-mail addresses of accounts follow the directory."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest

from aim.directory.model import User
from aim.planner.accounts import account_changes
from aim.planner.actions import SetDisplayName, SetEmails
from aim.world.accounts import Account
from tests.unit.model import mxid
from tests.unit.worlds import (
    Scene,
    a_config,
    a_directory,
    a_scene,
    a_seen,
    a_space,
    a_user,
    cycle,
    identities,
)


def scene(users: list[User], *accounts: Account, synced: list[str] | None = None, **known: Any) -> Scene:
    given = {} if synced is None else {"synced_attributes": synced}
    config = a_config(a_space("root", "none"), user_provisioner=given)
    made = a_scene(config, a_directory(users, {"none": []}), [account.localpart for account in accounts])
    return made.with_accounts(*accounts, **known)


def changes(made: Scene) -> dict[str, Any]:
    """Identity → what is set."""
    found: dict[str, Any] = {}
    for action in account_changes(made.world).actions:
        assert isinstance(action, SetDisplayName | SetEmails)
        found[action.identity] = (
            action.display_name if isinstance(action, SetDisplayName) else list(action.emails)
        )
    return found


def problems(made: Scene) -> dict[str, str]:
    return {problem.subject: problem.message for problem in account_changes(made.world).problems}


ANNA = a_user("anna", display_name="Anna", emails=("a@example.com",))
BOB = a_user("bob", display_name="Bob", emails=("b@example.com",))
LIKE_ANNA = Account("anna", "Anna", ("a@example.com",))


def test_what_differs_is_set() -> None:
    made = scene([ANNA], Account("anna", "anna", ("old@example.com",)))
    assert changes(made) == {
        "set_display_name @anna:example.com": "Anna",
        "set_emails @anna:example.com": ["a@example.com"],
    }
    [name, emails] = account_changes(made.world).actions
    assert name.details == {"display_name": "Anna", "was": "anna"}
    assert emails.details == {"emails": ["a@example.com"], "was": ["old@example.com"]}
    after = cycle(made)
    assert changes(after) == {}


@pytest.mark.parametrize(
    ("user", "account"),
    [
        (ANNA, LIKE_ANNA),
        (ANNA, Account("anna", "Anna", ("A@Example.com",))),
        (ANNA, Account("anna", "Anna", None)),
        (ANNA, Account("anna", "other", (), deactivated=True)),
        (ANNA, Account("somebody", "other", ())),
        (a_user("anna", emails=("a@example.com",)), LIKE_ANNA),
        (a_user("anna", display_name="other", emails=("x@example.com",), active=False), LIKE_ANNA),
    ],
    ids=["equal", "but for case", "not read", "deactivated", "no account", "no name", "disabled"],
)
def test_what_is_left_alone(user: User, account: Account) -> None:
    assert changes(scene([user, BOB], account)) == {}


@pytest.mark.parametrize("synced", [["displayName"], ["emails"], []])
def test_only_the_configured_attributes_are_synced(synced: list[str]) -> None:
    found = changes(scene([ANNA], Account("anna", "x", ()), synced=synced))
    types = {"displayName": "set_display_name", "emails": "set_emails"}
    assert [identity.split()[0] for identity in found] == [types[name] for name in synced]


def test_nobody_in_doubt_is_touched() -> None:
    made = scene([ANNA], Account("anna", "x", ())).with_seen()
    assert changes(made) != {}
    assert changes(made.with_seen(a_seen("anna", "another-id"))) == {}


def test_an_address_that_is_replaced_in_the_directory_leaves_the_account() -> None:
    account = Account("anna", "Anna", ("a@example.com", "old@example.com"))
    assert changes(scene([ANNA], account)) == {"set_emails @anna:example.com": ["a@example.com"]}


def test_who_has_no_address_in_the_directory_keeps_theirs() -> None:
    """A directory of which only a part can be read looks like this."""
    made = scene([a_user("anna", display_name="Anna"), BOB], LIKE_ANNA, Account("bob", "Bob", ()))
    assert changes(made) == {"set_emails @bob:example.com": ["b@example.com"]}
    moved = a_user("bob", display_name="Bob", emails=("a@example.com",))
    made = scene(
        [a_user("anna", display_name="Anna"), moved],
        LIKE_ANNA,
        Account("bob", "Bob", ()),
        owners={"a@example.com": "anna"},
    )
    assert changes(made) == {}
    assert mxid("anna") in problems(made)[mxid("bob")]


def test_a_directory_without_any_address_wipes_nothing() -> None:
    made = scene([a_user("anna", display_name="Anna")], LIKE_ANNA)
    assert changes(made) == {}
    assert list(problems(made)) == ["emails"]


def test_an_address_of_another_account_is_left_out_and_told() -> None:
    user = a_user("anna", display_name="Anna", emails=("a@example.com", "New@example.com"))
    made = scene([user], LIKE_ANNA, owners={"new@example.com": "ghost"})
    assert changes(made) == {}
    message = problems(made)[mxid("anna")]
    assert "New@example.com" in message
    assert mxid("ghost") in message
    user = a_user("anna", display_name="Anna", emails=("b@example.com", "new@example.com"))
    made = scene([user], LIKE_ANNA, owners={"new@example.com": "ghost"})
    assert changes(made) == {"set_emails @anna:example.com": ["b@example.com"]}


def test_an_address_that_moves_is_taken_first_and_given_then() -> None:
    anna = a_user("anna", display_name="Anna", emails=("new@example.com",))
    bob = a_user("bob", display_name="Bob", emails=("a@example.com",))
    made = scene([anna, bob], LIKE_ANNA, Account("bob", "Bob", ()), owners={"a@example.com": "anna"})
    actions = {action.identity: action.after for action in account_changes(made.world).actions}
    assert actions == {
        "set_emails @anna:example.com": (),
        "set_emails @bob:example.com": ("set_emails @anna:example.com",),
    }
    assert problems(made) == {}


def test_two_who_swap_addresses_lose_them_first() -> None:
    anna = a_user("anna", display_name="Anna", emails=("b@example.com",))
    bob = a_user("bob", display_name="Bob", emails=("a@example.com",))
    owners = {"a@example.com": "anna", "b@example.com": "bob"}
    made = scene([anna, bob], LIKE_ANNA, Account("bob", "Bob", ("b@example.com",)), owners=owners)
    assert changes(made) == {"set_emails @anna:example.com": [], "set_emails @bob:example.com": []}
    after = cycle(made)
    assert changes(after) == {
        "set_emails @anna:example.com": ["b@example.com"],
        "set_emails @bob:example.com": ["a@example.com"],
    }


def test_an_address_of_two_users_stays_where_it_is() -> None:
    bob = a_user("bob", display_name="Bob", emails=("A@example.com", "b@example.com"))
    made = scene([ANNA, bob], LIKE_ANNA, Account("bob", "Bob", ()))
    assert changes(made) == {"set_emails @bob:example.com": ["b@example.com"]}
    message = problems(made)["a@example.com"]
    assert mxid("anna") in message
    assert mxid("bob") in message
    after = cycle(made)
    assert changes(after) == {}
    assert list(problems(after)) == ["a@example.com"]


def test_an_address_of_two_users_is_not_taken_from_who_gets_another() -> None:
    anna = a_user("anna", display_name="Anna", emails=("a@example.com", "more@example.com"))
    bob = a_user("bob", display_name="Bob", emails=("a@example.com",))
    made = scene([anna, bob], LIKE_ANNA, Account("bob", "Bob", ()))
    assert changes(made) == {"set_emails @anna:example.com": ["a@example.com", "more@example.com"]}


def test_fifty_thousand_accounts_that_agree_cost_little() -> None:
    names = [f"user{number}" for number in range(50_000)]
    users = [a_user(name, display_name=name, emails=(f"{name}@example.com",)) for name in names]
    accounts = [Account(name, name, (f"{name}@example.com",)) for name in names]
    world = scene(users, *accounts).with_seen(*names).world
    took = []
    for _ in range(3):
        began = perf_counter()
        assert account_changes(world).actions == ()
        took.append(perf_counter() - began)
    assert min(took) < 0.1


def test_the_plan_has_them_before_everything_else() -> None:
    made = scene([ANNA], Account("anna", "anna", ("a@example.com",)))
    assert identities(made.plan().actions) == [
        "set_display_name @anna:example.com",
        "create_space root",
    ]
