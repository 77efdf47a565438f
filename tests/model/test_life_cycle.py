"""The life of a task, searched through: W and O hold in every world that a few tasks and two workers can get into.

Each search goes on until it finds no new world, so what it finds holds for runs of any length. The verbs are the real
ones, on a real table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.marks import committing
from tests.model import mistakes
from tests.model.search import Counterexample, Search
from tests.model.steps import Calls, Size
from tests.model.verbs import Verbs

pytestmark = [committing, pytest.mark.timeout(900)]

PLAIN = Size()
#: As little as there can be: for two tasks, and to show by which part of a world a mistake is found.
CALM = Size(operators=False, failures=False, zombies=0, late_confirms=False)
EMBEDDED = Size(rows_are_messages=True, lost_answers=True, late_claims=True, slow_reapers=True)

slow = pytest.mark.slow


@pytest.fixture
def search(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Size], Search]:
    def make(size: Size) -> Search:
        settings.CARROT = {
            "default_broker": "database://" if size.rows_are_messages else "amqp://host/v",
            "queues": [{"name": "default", "consumable": not size.handed_over}],
        }
        return Search(Calls(Verbs(size.tasks, monkeypatch, rows_are_messages=size.rows_are_messages), size))

    return make


#: The size, and how many worlds and transitions were found in it. Who finds fewer explores less than is said here.
SEARCHES = [
    pytest.param(PLAIN, 5_694, 85_972, id="one task"),
    pytest.param(replace(PLAIN, handed_over=True), 5_958, 88_790, id="one task, for other programs"),
    pytest.param(EMBEDDED, 5_943, 130_788, id="one task, embedded broker"),
    pytest.param(replace(CALM, tasks=2), 2_446, 25_830, id="two tasks"),
    pytest.param(replace(PLAIN, late_messages=True), 7_798, 120_140, id="one task, late messages"),
    pytest.param(
        replace(PLAIN, messages=2, wrong_clock=True, markers=True), 19_809, 336_492, marks=slow, id="two messages"
    ),
    pytest.param(
        Size(
            zombies=1,
            lost_answers=True,
            late_claims=True,
            slow_reapers=True,
            blame=True,
            wrong_clock=True,
            markers=True,
        ),
        226_619,
        4_457_930,
        marks=slow,
        id="one task and every fault",
    ),
    pytest.param(
        replace(EMBEDDED, blame=True, wrong_clock=True), 16_307, 341_961, marks=slow, id="every fault, embedded broker"
    ),
    pytest.param(
        replace(CALM, tasks=2, operators=True, failures=True), 4_748, 77_177, marks=slow, id="two tasks, operators"
    ),
    pytest.param(
        replace(CALM, tasks=2, late_confirms=True, lost_answers=True, slow_reapers=True, markers=True),
        24_195,
        371_003,
        marks=slow,
        id="two tasks, faults",
    ),
    pytest.param(
        replace(CALM, tasks=2, rows_are_messages=True, zombies=2, lost_answers=True),
        17_231,
        352_714,
        marks=slow,
        id="two tasks, embedded broker",
    ),
]


@pytest.mark.parametrize(("size", "worlds", "transitions"), SEARCHES)
def test_w_and_o_hold_in_every_world_and_each_comes_to_its_end(
    search: Callable[[Size], Search], size: Size, worlds: int, transitions: int
) -> None:
    found = search(size).run()
    print(found)
    assert found.statuses == statuses(size)
    assert found.worlds >= 0.95 * worlds
    assert found.transitions >= 0.95 * transitions
    # A message sent, delivered, claimed, run and recorded; before that a claim of nobody found, and a bell rung.
    assert found.to_the_end <= 10 + 6 * (size.tasks - 1)
    assert found.to_an_owner <= 3 + 2 * (size.tasks - 1)


def statuses(size: Size) -> set[str]:
    """Those that tasks come to have in a world of this size."""
    found = {"WAITING", "PUBLISHED", "IN_PROGRESS", "COMPLETED"}
    found |= {"FAILED"} if size.failures else set()
    found |= {"CANCELLED"} if size.operators else set()
    return found | ({"HANDED_OVER"} if size.handed_over else set())


SILENT = "W: task A has neither a bell nor a message, and the broker has lost none of it"
TAKEN = "task A was taken away from worker"
LATE = "task A was ended by an outcome of"
NO_END = "carrot does not bring this to an end by itself"
NO_OWNER = "O: a claim is in no living worker's memory, and nobody will release it"

WITH_ZOMBIES = replace(CALM, zombies=1)
WITH_OPERATORS = replace(CALM, operators=True)

#: The mistake, what the world needs for it to show, and what is wrong then.
MISTAKES: list[tuple[Callable[[pytest.MonkeyPatch], None], Size, str]] = [
    (mistakes.a_confirm_disarms_any_bell, replace(CALM, late_confirms=True), SILENT),
    (mistakes.a_release_arms_no_bell, CALM, SILENT),
    (mistakes.a_hand_back_arms_no_bell, CALM, SILENT),
    (mistakes.a_blamed_task_gets_no_bell, replace(CALM, blame=True), SILENT),
    (mistakes.a_requeued_task_gets_no_bell, WITH_OPERATORS, SILENT),
    (mistakes.requeue_keeps_the_fence, WITH_OPERATORS, SILENT),
    (mistakes.the_relay_disarms_what_it_rings, CALM, SILENT),
    (mistakes.the_relay_reads_what_it_has_rung, replace(CALM, late_messages=True), SILENT),
    (mistakes.the_relay_pushes_no_bell_forward, CALM, "a bell that was rung is still due"),
    (mistakes.the_reconciler_arms_nothing, CALM, NO_END),
    (mistakes.bells_of_a_wrong_clock_stay, replace(CALM, wrong_clock=True), NO_END),
    (mistakes.every_message_is_acknowledged, WITH_ZOMBIES, SILENT),
    (mistakes.a_claim_keeps_the_fence, CALM, "a claim has no fence of its own"),
    (mistakes.the_lost_may_claim, WITH_ZOMBIES, "worker 1 was declared lost, and claims"),
    (mistakes.an_outcome_is_written_whatever_its_fence, WITH_ZOMBIES, LATE),
    (mistakes.an_outcome_is_written_whatever_the_status, WITH_ZOMBIES, LATE),
    (mistakes.a_hand_back_ignores_the_fence, WITH_ZOMBIES, TAKEN),
    (mistakes.a_release_ignores_the_fence, replace(WITH_ZOMBIES, slow_reapers=True), TAKEN),
    (mistakes.a_hand_back_keeps_the_worker, CALM, "it waits, and has a worker"),
    (mistakes.a_hand_back_counts_as_a_try, CALM, "a claim is not accounted for"),
    (mistakes.a_release_begins_the_fence_anew, CALM, "its fence was lowered"),
    (mistakes.withdraw_keeps_the_bell, WITH_OPERATORS, "it has a bell, and does not wait"),
    (mistakes.withdraw_takes_what_has_ended, WITH_OPERATORS, "it was final, and has changed"),
    (mistakes.withdraw_takes_what_runs, WITH_OPERATORS, TAKEN),
    (mistakes.orphans_are_those_of_workers_without_a_row, CALM, NO_OWNER),
    (mistakes.orphans_are_all_that_run, CALM, TAKEN),
    (mistakes.nobody_audits, replace(CALM, lost_answers=True), NO_OWNER),
    (mistakes.a_beat_revives, WITH_ZOMBIES, "worker 1 was declared lost, and is told that it lives"),
]


@pytest.mark.parametrize(("mistake", "size", "wrong"), MISTAKES, ids=[entry[0].__name__ for entry in MISTAKES])
def test_the_search_finds_a_mistake_and_tells_the_shortest_way_to_it(
    search: Callable[[Size], Search],
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[pytest.MonkeyPatch], None],
    size: Size,
    wrong: str,
) -> None:
    mistake(monkeypatch)
    with pytest.raises(Counterexample) as caught:
        search(size).run()
    print(caught.value)
    assert wrong in str(caught.value)
