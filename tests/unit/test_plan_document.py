"""The plan as JSON: its shape, its digest, and what a saved one is refused for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aim.errors import PlanError
from aim.planner.document import FORMAT_VERSION, digest, digest_of, read_saved, to_document, to_text
from tests.unit.model import mxid
from tests.unit.worlds import NOW, Scene, a_config, a_directory, a_scene, a_space, identities, provisioned

CONFIG = a_config(a_space("all", "", ("mods", 50)), default_rooms=[{"id": "talk"}])


def first() -> Scene:
    return a_scene(CONFIG, a_directory(["ann", "bob"], {"mods": ["ann"]}), ["ann"])


def leaving() -> Scene:
    """Five of six have left: all of them held."""
    people = ["ann", "bob", "cid", "dan", "eve", "fay"]
    scene = provisioned(a_config(a_space("all", "")), a_directory(people))
    return replace(scene, directory=a_directory(["ann"], roster=scene.roster))


def test_the_shape_that_users_rely_on() -> None:
    document: Any = json.loads(to_text(to_document(first().plan(), NOW)))
    assert list(document) == [
        "format_version",
        "digest",
        "created_at",
        "source",
        "summary",
        "actions",
        "problems",
        "held",
    ]
    assert document["format_version"] == FORMAT_VERSION == 1
    assert document["digest"].startswith("sha256:")
    assert len(document["digest"]) == len("sha256:") + 64
    assert document["created_at"] == "2030-01-01T12:00:00Z"
    assert document["source"] == {"type": "ldif", "users": 2, "groups": 1}
    assert document["summary"] == {
        "total": 7,
        "by_type": {"add_child": 1, "create_room": 1, "create_space": 1, "invite": 2, "set_power_level": 2},
        "held": 0,
        "pending": 1,
    }
    [invite] = [one for one in document["actions"] if one["type"] == "invite" and one["room"] == "all"]
    assert invite == {
        "type": "invite",
        "target": "@ann:example.com",
        "room": "all",
        "room_id": None,
        "reason": "in the directory",
        "held": False,
        "after": ["create_space all"],
        "details": {"acting_as": None},
    }
    assert document["problems"][0].keys() == {"severity", "subject", "message"}


def test_details_of_every_kind_of_action() -> None:
    document: Any = to_document(first().plan())
    details = {(one["type"], one["room"]): one["details"] for one in document["actions"]}
    assert details["create_room", "all/talk"] == {
        "name": "talk",
        "parent": "all",
        "room_version": None,
        "state": {
            "m.room.join_rules": {
                "allow": [{"type": "m.room_membership", "space": "all"}],
                "join_rule": "restricted",
            },
            "m.room.name": {"name": "talk"},
        },
    }
    assert details["set_power_level", "all"] == {"acting_as": None, "level": 50, "was": 0}
    assert details["add_child", "all"] == {"child_id": None, "suggested": False}
    [kick] = [one for one in cast_actions(leaving()) if one["target"] == mxid("bob")]
    assert (kick["details"], kick["held"]) == ({"acting_as": None}, True)


def cast_actions(scene: Scene) -> list[Any]:
    document: Any = to_document(scene.plan())
    found: list[Any] = document["actions"]
    return found


def test_equal_worlds_have_equal_documents_whenever_they_are_made() -> None:
    one, other = to_document(first().plan(), NOW), to_document(first().plan(), NOW + timedelta(days=1))
    assert one.pop("created_at") != other.pop("created_at")
    assert json.dumps(one) == json.dumps(other)


def test_the_digest_does_not_depend_on_what_is_held() -> None:
    scene = leaving()
    approved = scene.approve(scene.plan())
    assert len(scene.plan().held) == 5
    assert approved.plan().held == ()
    assert digest(scene.plan()) == digest(approved.plan())


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: replace(scene, directory=a_directory(["ann"], {"mods": ["ann"]})),
        lambda scene: replace(scene, directory=a_directory(["ann", "bob", "cid"], {"mods": ["ann"]})),
        lambda scene: replace(scene, directory=a_directory(["ann", "bob"], {"mods": ["ann"], "more": []})),
        lambda scene: replace(scene, directory=a_directory(["ann", "bob"], {"mods": []})),
        lambda scene: replace(scene, config=a_config(a_space("all", "", ("mods", 51)))),
        lambda scene: replace(scene, config=a_config(a_space("all", "", ("mods", 50), name="Other"))),
        lambda scene: replace(scene, config=a_config(a_space("all", "", "unknown", ("mods", 50)))),
    ],
)
def test_the_digest_covers_everything_else(change: Any) -> None:
    scene = first()
    other: Scene = change(scene)
    other = replace(other, observed=a_scene(other.config, other.directory, ["ann"]).observed)
    assert digest(scene.plan()) != digest(other.plan())


# -- reading back ---------------------------------------------------------------------------------


def saved(scene: Scene) -> Any:
    return json.loads(to_text(to_document(scene.plan(), NOW)))


def test_a_saved_plan_names_what_it_held() -> None:
    scene = leaving()
    found = read_saved(json.dumps(saved(scene)))
    assert found.digest == digest(scene.plan())
    assert list(found.held) == identities(scene.plan().held)


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document["actions"].pop(),
        lambda document: document["actions"].append(document["actions"][0]),
        lambda document: document["actions"].reverse(),
        lambda document: document["actions"][0].update(target="@eve:example.com"),
        lambda document: document["actions"][0].update(reason="because"),
        lambda document: document["actions"][0]["details"].update(level=100),
        lambda document: document["summary"].update(total=0),
        lambda document: document["source"].update(users=0),
        lambda document: document["problems"].append({}),
        lambda document: document.update(extra=1),
        lambda document: document.update(digest="sha256:" + "0" * 64),
        lambda document: document.update(digest=None),
    ],
)
def test_an_edited_plan_is_refused(edit: Any) -> None:
    document = saved(leaving())
    edit(document)
    with pytest.raises(PlanError, match="was changed after it was made"):
        read_saved(json.dumps(document))


def test_another_layout_of_the_same_plan_is_the_same_plan() -> None:
    document = saved(leaving())
    shuffled = dict(reversed(document.items()))
    assert read_saved(json.dumps(shuffled, indent=7)) == read_saved(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        '{"digest": "x"}',
        '{"digest": "x", "actions": {}}',
        "[" * 100_000,
        '{"format_version": 1, "digest": "x", "actions": ["\\ud800"]}',
        '{"format_version": 1, "digest": "x", "actions": [1, null, []]}',
        '{"format_version": 1, "digest": "x", "actions": [], "summary": 5}',
    ],
)
def test_what_is_no_plan_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_saved(text)
    assert refused.value.remedy


def test_a_plan_of_another_format_is_refused() -> None:
    document = saved(first())
    document["format_version"] = 2
    document["digest"] = digest_of(document)
    with pytest.raises(PlanError, match="format 2"):
        read_saved(json.dumps(document))
