"""The plan as people read it: mirrored spaces go by their names, all others by their keys."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from aim.config.sources import LdifSource
from aim.desired.mirrored import space_names
from aim.desired.rooms import DesiredRoom
from aim.directory.model import Branch, Directory, Group, GroupKind
from aim.directory.roster import NOBODY
from aim.planner.actions import (
    AbandonSpace,
    EraseAccount,
    Invite,
    Join,
    Kick,
    LockAccount,
    ReleaseRoom,
    SetDisplayName,
    SetEmails,
    SetPowerLevel,
    TakeControl,
    UnlockAccount,
)
from aim.planner.document import to_document
from aim.planner.guards import Trip
from aim.planner.plan import Plan, SourceCount
from aim.planner.render import held_by, render
from tests.unit.worlds import (
    Scene,
    a_config,
    a_directory,
    a_scene,
    a_space,
    accept_invites,
    cycle,
)

UNITS = ("top", "staff", "lab")


def with_tree(directory: Directory, *, names: tuple[str, ...] = UNITS) -> Directory:
    """The groups top, staff and lab become units below each other."""
    positions = {group.id: position for position, group in enumerate(directory.groups)}
    groups = list(directory.groups)
    for key, name in zip(UNITS, names, strict=True):
        groups[positions[key]] = Group(key, GroupKind.OU, name, groups[positions[key]].members)
    parents = (None, "0", "1")
    return replace(
        directory,
        groups=tuple(groups),
        tree=tuple(
            Branch(str(number), positions[key], parent)
            for number, (key, parent) in enumerate(zip(UNITS, parents, strict=True))
        ),
    )


def mirroring() -> Scene:
    source = LdifSource.model_validate({"type": "ldif", "path": "x.ldif", "mirror_tree": True})
    people = {"top": ["ann", "bob"], "staff": ["bob"], "lab": ["bob"]}
    directory = with_tree(a_directory(["ann", "bob"], people))
    config = a_config(default_rooms=[{"id": "general"}])
    return a_scene(config.model_copy(update={"source": source}), directory)


def text_of(plan: Plan, *, unfold: bool = True) -> str:
    console = Console(file=io.StringIO(), width=300)
    console.print(render(plan, unfold=unfold))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_mirrored_spaces_are_shown_by_name_and_kept_by_key() -> None:
    plan = mirroring().plan()
    text = text_of(plan)
    assert "tree:" not in text
    for line in (
        "+ create space “lab” — unit in the directory",
        "+ add child staff — belongs to top",
        "+ add child staff/general — belongs to staff",
    ):
        assert line in text
    assert [room for room in (line.strip("│├└─ ") for line in text.splitlines()) if room in UNITS] == [*UNITS]
    rooms = {action["room"] for action in json.loads(json.dumps(to_document(plan)))["actions"]}
    assert rooms == {key for unit in "012" for key in (f"tree:{unit}", f"tree:{unit}/general")}


def test_a_reason_names_the_subspace() -> None:
    scene = mirroring()
    top = scene.desired.rooms["tree:0"]
    grants = {"top": ["ann"], "staff": ["bob"], "lab": []}
    scene = replace(
        scene, directory=with_tree(a_directory(["ann", "bob"], grants, roster=scene.directory.roster))
    )
    assert top.subspaces == ("tree:1",)
    assert "+ invite @bob — in its subspace staff: member of staff" in text_of(scene.plan())


def test_a_renamed_unit_is_a_change_in_the_directory() -> None:
    scene = accept_invites(cycle(mirroring()))
    assert scene.plan().actions == ()
    renamed = with_tree(scene.directory, names=("top", "personnel", "lab"))
    text = text_of(replace(scene, directory=renamed).plan())
    assert "~ set m.room.name to “personnel” — differs from the directory" in text


def test_problems_and_guards_name_mirrored_spaces() -> None:
    scene = accept_invites(cycle(mirroring()))
    # The unit of the deepest space is gone.
    tree = tuple(branch for branch in scene.directory.tree if branch.id != "2")
    plan = replace(scene, directory=replace(scene.directory, tree=tree)).plan()
    gone = scene.observed.rooms["tree:2"].room_id
    assert f"info lab (tree:2): is no longer configured; {gone} is left as it is" in text_of(plan)
    trip = Trip("kicks", "tree:1", 4, 3)
    assert held_by(plan, trip) == "kicks in space staff: 4 people within an hour, the limit is 3"
    assert held_by(plan, Trip("kicks", "organisation", 4, 3)).startswith("kicks in the organisation: ")
    assert "! held: kicks in space staff: " in text_of(replace(plan, trips=(trip,)))


def test_other_spaces_go_by_their_keys() -> None:
    text = text_of(a_scene(a_config(a_space("all", "", name="All of us")), a_directory(["ann"])).plan())
    assert "+ create space “All of us” — space in the configuration" in text
    assert text.splitlines()[1] == "└── all"


def a_desired(key: str, name: str, parent: str | None = None) -> DesiredRoom:
    return DesiredRoom(
        key=key, space=key, parent=parent, is_space=True, name=name, members=NOBODY, levels={}, grants=()
    )


def test_names_that_repeat_are_told_apart() -> None:
    spaces = [
        a_desired("tree:0", "x"),
        a_desired("tree:1", "sales", "tree:0"),
        a_desired("tree:2", "lab", "tree:1"),
        a_desired("tree:3", "lab", "tree:0"),
        a_desired("tree:4", "twin", "tree:0"),
        a_desired("tree:5", "twin", "tree:0"),
        a_desired("tree:6", "all", "tree:0"),
        a_desired("all", "Everybody"),
    ]
    assert space_names({space.key: space for space in spaces}) == {
        "tree:0": "x",
        "tree:1": "sales",
        "tree:2": "x / sales / lab",
        "tree:3": "x / lab",
        "tree:4": "x / twin (tree:4)",
        "tree:5": "x / twin (tree:5)",
        "tree:6": "x / all",
    }


def test_acting_as_people_and_rooms_that_change_hands_are_told() -> None:
    room: dict[str, Any] = {"room": "all", "space": "all", "room_id": "!r:example.com", "reason": "because"}
    ann, bob = "@ann:example.com", "@bob:example.com"
    actions = (
        TakeControl(**room, acting_as=ann, creator=ann, creator_level=100),
        TakeControl(**{**room, "room": "all/x"}, acting_as=None, creator=ann, creator_level=None),
        SetPowerLevel(**room, person=ann, level=50, was=100, as_themselves=True),
        Kick(**room, person=ann, as_themselves=True),
        Kick(**room, person=bob),
        Join(**room, person=bob, needs_invite=False),
        Invite(**room, person=ann),
        Invite(**room, person=bob, acting_as=ann),
        ReleaseRoom(**{**room, "room": "all/y"}),
        ReleaseRoom(**{**room, "room": "all/z"}, leaves=False),
        AbandonSpace(**room),
    )
    plan = Plan(SourceCount("ldif", 2, 0), actions, server_name="example.com")
    text = text_of(plan)
    for line in (
        "~ take control of !r:example.com, acting as @ann",
        "~ take control of !r:example.com —",
        "~ level 100 → 50 for @ann, acting as them",
        "- kick @ann, acting as them",
        "- kick @bob —",
        "+ join @bob",
        "+ invite @ann —",
        "+ invite @bob, acting as @ann —",
        "- release !r:example.com —",
        "- release !r:example.com, but stay in it",
        "- abandon the space !r:example.com",
    ):
        assert line in text


def test_accounts_have_a_branch_of_their_own() -> None:
    def account(name: str) -> dict[str, Any]:
        mxid = f"@{name}:example.com"
        return {"room": mxid, "space": "", "person": mxid, "reason": "because"}

    due_at = datetime(2030, 1, 1, tzinfo=UTC)
    actions = (
        LockAccount(**account("ann"), user_id="1", period=timedelta(days=30), held=True),
        SetDisplayName(**account("bob"), display_name="Bob", was=None),
        SetEmails(**account("cid"), emails=("c@x.org",), was=()),
        SetEmails(**account("dan"), emails=(), was=("d@x.org",)),
        UnlockAccount(**account("eve"), user_id="2"),
        EraseAccount(**account("fay"), user_id="3", due_at=due_at),
        Invite(room="all", space="all", person="@bob:example.com", reason="because"),
    )
    plan = Plan(SourceCount("ldif", 2, 0), actions, server_name="example.com")
    text = text_of(plan)
    assert text.index("accounts") < text.index("all")
    for line in (
        "! lock @ann (held) — because; erased after 30 days",
        "~ name @bob “Bob” —",
        "~ set the e-mail addresses of @cid to c@x.org —",
        "~ set the e-mail addresses of @dan to none —",
        "~ unlock @eve —",
        "- erase @fay —",
        "1 to add, 4 to change, 2 to take away, 1 held",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("period", "queues", "text"),
    [
        (timedelta(days=1), True, "lock @ann — gone; erased after 1 day"),
        (timedelta(hours=36), True, "lock @ann — gone; erased after 36 hours"),
        (timedelta(minutes=90), True, "lock @ann — gone; erased after 90 minutes"),
        (timedelta(seconds=1), True, "lock @ann — gone; erased after 1 second"),
        (timedelta(), True, "lock @ann — gone; erased by the next cycle"),
        (timedelta(days=30), False, "lock @ann — gone\n"),
    ],
)
def test_a_lock_says_until_when(period: timedelta, queues: bool, text: str) -> None:
    mxid = "@ann:example.com"
    lock = LockAccount(
        room=mxid, space="", person=mxid, reason="gone", user_id="1", period=period, queues=queues
    )
    assert text in text_of(Plan(SourceCount("ldif", 2, 0), (lock,), server_name="example.com"))


def test_many_accounts_share_a_line() -> None:
    actions = tuple(
        SetDisplayName(room=mxid, space="", person=mxid, display_name="Name", was=None, reason="differs")
        for mxid in (f"@p{number:02}:example.com" for number in range(50))
    )
    plan = Plan(SourceCount("ldif", 2, 0), actions, server_name="example.com")
    shown = "~ set the display names of 50 people: @p00, @p01, @p02, … 47 more — differs"
    assert shown in text_of(plan, unfold=False)
