"""The queue of rooms: equal keys collapse, one task a key, a failing key waits alone."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from aim.daemon.queue import FIRST_PAUSE, LONGEST_PAUSE, Queue
from tests.unit.worlds import NOW

SECOND = timedelta(seconds=1)


def test_equal_keys_collapse_and_the_earlier_time_counts() -> None:
    queue = Queue()
    queue.add(["a"], NOW + SECOND)
    queue.add(["a", "b"], NOW)
    queue.add(["a"], NOW + 2 * SECOND)
    assert queue.waiting == 2
    assert queue.take(NOW) == {"a", "b"}
    assert queue.take(NOW + 10 * SECOND) == frozenset()


def test_what_is_not_due_waits() -> None:
    queue = Queue()
    queue.add(["a"], NOW + SECOND)
    assert queue.take(NOW) == frozenset()
    assert queue.next_due() == NOW + SECOND
    assert queue.take(NOW + SECOND) == {"a"}
    assert queue.next_due() is None


def test_a_key_is_worked_on_by_one_task_at_a_time() -> None:
    queue = Queue()
    queue.add(["a"], NOW)
    queue.take(NOW)
    queue.add(["a"], NOW)
    assert queue.next_due() is None
    assert queue.take(NOW) == frozenset()
    assert queue.occupy(["a", "b"]) == {"b"}
    assert queue.busy == {"a", "b"}
    queue.done("a")
    assert queue.take(NOW) == {"a"}


def test_what_is_occupied_needs_no_look_of_its_own() -> None:
    queue = Queue()
    queue.add(["a"], NOW)
    assert queue.occupy(["a"]) == {"a"}
    queue.done("a")
    assert queue.take(NOW) == frozenset()


def test_a_failing_key_waits_longer_and_longer_alone() -> None:
    queue, pauses, now = Queue(), [], NOW
    for _ in range(20):
        queue.add(["a", "b"], now)
        assert queue.take(now) == {"a", "b"}
        queue.done("b")
        pauses.append(queue.failed("a", now))
        assert queue.take(now) == frozenset()
        now += pauses[-1]
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_success_forgets_failures() -> None:
    queue = Queue()
    queue.failed("a", NOW)
    queue.take(NOW + FIRST_PAUSE)
    queue.done("a")
    assert queue.failed("a", NOW) == FIRST_PAUSE


def test_an_event_does_not_wait_for_the_pause_of_a_failure() -> None:
    queue = Queue()
    queue.failed("a", NOW)
    queue.add(["a"], NOW)
    assert queue.take(NOW) == {"a"}


steps = st.lists(st.tuples(st.sampled_from(["add", "take", "done", "failed"]), st.sampled_from("abc")))


@given(steps)
def test_nothing_added_is_lost(steps: list[tuple[str, str]]) -> None:
    """Whatever is added is taken at some time after."""
    queue, now = Queue(), NOW
    owed: set[str] = set()
    for step, key in steps:
        now += SECOND
        if step == "add":
            queue.add([key], now)
            owed.add(key)
        elif step == "take":
            owed -= queue.take(now)
        elif key in queue.busy:
            if step == "done":
                queue.done(key)
            else:
                queue.failed(key, now)
    for key in queue.busy:
        queue.done(key)
    assert owed <= queue.take(now + LONGEST_PAUSE)


def test_what_is_seen_in_passing_neither_ends_a_pause_nor_disturbs_work() -> None:
    queue = Queue()
    queue.failed("a", NOW)
    queue.occupy(["b"])
    queue.discover(["a", "b", "c"], NOW)
    assert queue.take(NOW) == {"c"}
    queue.done("b")
    assert queue.take(NOW) == frozenset()
    assert queue.take(NOW + FIRST_PAUSE) == {"a"}
