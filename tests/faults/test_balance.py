"""The balance finds what is lost, phantom or doubled: here the rows are wrong because the test spoils them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import invariants
from tests.faults.balance import Balance, balance, check_history
from tests.faults.form import Form
from tests.faults.load import Journal
from tests.faults.producers import Ledger
from tests.faults.workload import Workload
from tests.project import Project, ProjectFactory


class Books:
    """Rows, a journal and a ledger that agree: three plain tasks and three atomic ones, and two that never were."""

    def __init__(self, site: Project) -> None:
        self.site = site
        self.journal = Journal(site)
        self.ledger = Ledger(site.directory / "ledger")
        site.sql("DELETE FROM carrot_messagelog")
        self.publish("a-plain", "b-plain", "c-plain", "d-atomic", "e-atomic", "f-atomic")
        for name in ("a", "b", "c"):
            self.write(self.journal.path, f"begin {name}-plain 1 1.0", f"end {name}-plain 1 2.0")
        for name in ("d", "e", "f"):
            self.effect(f"{name}-atomic")
        self.write(self.site.directory / "ledger", "never g-never .", "never h-never .")

    def publish(self, *names: str, word: str = "committed") -> None:
        for name in names:
            self.row(name)
            self.write(self.site.directory / "ledger", f"{word} {name} 1.0 0.001 .")

    def row(self, name: str) -> None:
        number = self.site.sql("SELECT count(*) AS n FROM carrot_messagelog")[0]["n"]
        columns = (
            "uuid, status, origin, task, args, kwargs, broker, queue, exchange, routing_key, priority, publish_time"
        )
        rest = "state_at, fence, tries, crashes, hand_backs, note, log, exception, traceback"
        self.site.sql(
            f"INSERT INTO carrot_messagelog ({columns}, {rest}) VALUES ('{number:032x}', 'COMPLETED', 'code', 't',"
            f" '[\"/x/journal\", \"{name}\", 0.1]', '{{}}', 'database://', 'default', '', '', 0, '2020-01-01',"
            " '2020-01-01', 1, 1, 0, 0, '', '', '', '')"
        )

    def effect(self, name: str) -> None:
        self.site.sql(
            "INSERT INTO app_effect (message_id, attempt, pid, created) VALUES (%s, 1, 1, '2020-01-01')", [name]
        )

    def update(self, name: str, change: str) -> None:
        self.site.sql(f"UPDATE carrot_messagelog SET {change} WHERE args LIKE '%%{name}%%'")

    @staticmethod
    def write(path: Path, *lines: str) -> None:
        with open(path, "a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def balance(self, **more: object) -> Balance:
        return balance(self.site, self.journal, [self.ledger], **more)  # type: ignore[arg-type]


@pytest.fixture
def books(project: ProjectFactory) -> Books:
    return Books(project())


def test_books_that_agree_are_in_balance(books: Books) -> None:
    found = books.balance()
    assert (found.sent, found.committed, found.rolled_back, found.completed, found.failed) == (6, 6, 2, 6, 0)
    assert (found.lost, found.phantom, found.doubled_plain, found.doubled_atomic) == ([], [], {}, {})
    assert (found.publish_p50, found.publish_p99, found.publish_max) == (0.001, 0.001, 0.001)


SPOILED: dict[str, tuple[Callable[[Books], None], dict[str, object]]] = {
    "a committed task without a row and without a run": (
        lambda books: books.write(books.site.directory / "ledger", "committed x-plain 1.0 0.001 ."),
        {"lost": ["x-plain"]},
    ),
    "a task that is not completed": (lambda books: books.update("a-plain", "status = 'FAILED'"), {"lost": ["a-plain"]}),
    "a completed plain task that never ran": (lambda books: books.publish("x-plain"), {"lost": ["x-plain"]}),
    "a completed atomic task without its effect": (
        lambda books: books.publish("x-atomic"),
        {"lost": ["x-atomic"], "doubled_atomic": {}},
    ),
    "a row of what was rolled back": (
        lambda books: books.row("g-never"),
        {"phantom": ["g-never"]},
    ),
    "a trace of what was rolled back": (
        lambda books: books.write(books.journal.path, "begin g-never 1 1.0"),
        {"phantom": ["g-never"]},
    ),
    "an effect without a row": (lambda books: books.effect("x-atomic"), {"phantom": ["x-atomic"]}),
    "a row nobody knows of": (lambda books: books.row("x-plain"), {"phantom": ["x-plain"]}),
    "two rows of one publication": (lambda books: books.row("a-plain"), {"phantom": ["a-plain"]}),
    "a plain task that ran three times": (
        lambda books: books.write(books.journal.path, *["end a-plain 2 3.0"] * 2),
        {"doubled_plain": {"a-plain": 2}, "lost": []},
    ),
    "an atomic task with two effects": (lambda books: books.effect("d-atomic"), {"doubled_atomic": {"d-atomic": 1}}),
    "an effect of an atomic task that failed": (
        lambda books: books.update("d-atomic", "status = 'FAILED'"),
        {"doubled_atomic": {"d-atomic": 1}},
    ),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_the_balance_tells(books: Books, spoiled: str) -> None:
    spoil, expected = SPOILED[spoiled]
    spoil(books)
    found = books.balance()
    assert {name: getattr(found, name) for name in expected} == expected


def test_what_may_or_may_not_be_committed_is_neither_lost_nor_phantom(books: Books) -> None:
    books.write(books.site.directory / "ledger", "unknown x-plain 1.0 0.001 .")
    books.publish("y-atomic", word="unknown")
    books.effect("y-atomic")
    found = books.balance()
    assert (found.unknown, found.sent, found.lost, found.phantom) == (2, 8, [], [])


def test_a_failure_that_was_planned_is_no_loss(books: Books) -> None:
    books.update("a-plain", "status = 'FAILED'")
    found = books.balance(planned_failures=["a-plain"])
    assert (found.lost, found.failed) == ([], 1)


def test_what_a_killed_producer_did_not_note_is_unknown_and_what_it_rolled_back_is_not(books: Books) -> None:
    books.row("x-plain")
    books.row("g-never")
    books.write(books.journal.path, "end x-plain 1 1.0", "end g-never 1 1.0")
    found = books.balance(producer_killed=True)
    assert (found.unknown, found.lost, found.phantom) == (1, [], ["g-never"])


def test_a_line_of_the_ledger_that_is_not_whole_does_not_count(books: Books) -> None:
    with open(books.site.directory / "ledger", "a") as file:
        file.write("committed x-pla")
    assert books.balance().committed == 6


def test_a_history_later_than_its_row_is_found(books: Books) -> None:
    check_history(books.site)
    (first,) = books.site.sql("SELECT min(id) AS id FROM carrot_messagelog")
    books.site.sql(
        "INSERT INTO carrot_attempt (message_log_id, number, worker, exception, traceback, log)"
        " VALUES (%s, 1, '', '', '', '')",
        [first["id"]],
    )
    with pytest.raises(AssertionError, match="I7"):
        check_history(books.site)


def test_a_workload_at_rest_fails_its_check_when_a_task_is_lost_or_an_effect_doubled(
    project: ProjectFactory, form: Form
) -> None:
    site = project(**form.settings)
    with Workload(site, form, services=1, processes=1, producers=1, tasks=30) as load:
        load.finish()
    load.check(stop=False)
    done = sorted(invariants.effects(site))
    site.sql("UPDATE app_effect SET message_id = %s WHERE message_id = %s", [done[0], done[1]])
    with pytest.raises(AssertionError, match="I1: 1 of"):
        load.check(stop=False)
    site.sql("INSERT INTO app_effect (message_id, attempt, pid, created) VALUES (%s, 1, 1, '2020-01-01')", [done[1]])
    with pytest.raises(AssertionError, match="I3"):
        load.check()
