"""The event loop keeps running while a directory is read: what is put off is made up for."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator

import pytest

from aim.bridges.ldap import pace
from aim.directory import flatten
from aim.directory.entries import Entry, Rules
from aim.directory.gather import Gathered, gather
from aim.directory.roster import Roster


def gathered(people: int) -> Gathered:
    return gather(
        (
            Entry(f"uid=u{number},dc=x", {"objectclass": ["person"], "uid": [f"u{number % (people - 1)}"]})
            for number in range(people)
        ),
        Rules(),
    )


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.isenabled(), sys.getswitchinterval()
    yield
    assert (gc.isenabled(), sys.getswitchinterval()) == before


def test_garbage_is_collected_again_when_the_last_reader_is_done() -> None:
    with pace.undisturbed():
        with pace.undisturbed():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_it_as_well() -> None:
    with pytest.raises(ValueError, match="x"), pace.undisturbed():
        raise ValueError("x")
    assert gc.isenabled()


def test_who_does_not_collect_garbage_is_left_alone() -> None:
    gc.disable()
    try:
        with pace.undisturbed():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_frozen_stays_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with pace.undisturbed():
            pass
        assert gc.get_freeze_count() == frozen > 0
    finally:
        gc.unfreeze()


def test_what_was_read_is_old_afterwards() -> None:
    with pace.undisturbed():
        kept = [[number] for number in range(10_000)]
    young = {id(found) for generation in (0, 1) for found in gc.get_objects(generation)}
    assert not young & {id(inner) for inner in kept}


async def test_numbers_are_given_as_in_one_go_and_others_have_their_turns() -> None:
    people = 12_000
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    roster, reference = Roster(), Roster()
    enrolled = await pace.enrol(gathered(people), roster)
    beside.cancel()
    assert enrolled == flatten.enrol(gathered(people), reference)
    assert len(enrolled.people) == people - 2
    assert turns >= 3


def test_what_is_released_is_gone() -> None:
    forgotten = gathered(12_000)
    pace.release(forgotten)
    assert not forgotten.settled.people
    assert not forgotten.containers
    assert not forgotten.read
