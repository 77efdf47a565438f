"""Log and pid files in trouble: the tasks go on, and no file of anybody else is touched."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.faults import invariants
from tests.faults.combinations import corners, on_postgresql
from tests.faults.form import Form
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers.process import Process, session_members

#: Bytes that a file may have while there is "no space left", and that the log file has by then.
FULL, LARGE = 32 << 20, 64 << 20


@pytest.mark.scenario("F39")
@on_postgresql
def test_a_log_file_that_cannot_grow_for_a_while_costs_its_lines_and_nothing_else(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.calm_settings)
    log = site.directory / "carrot.log"
    log.touch(0o600)
    os.truncate(log, LARGE)  # without a byte on the disk
    with Workload(site, form, scenario) as load:
        members = [member for service in load.services for member in session_members(service.pid)]
        for _ in range(form.times(1, 5)):
            load.work_goes_on(20)
            let_files_grow(members, to=FULL)
            scenario.fault()
            size = log.stat().st_size
            load.work_goes_on(50)
            assert log.stat().st_size == size
            log.rename(log.with_suffix(".1"))  # what was never written of its lines is lost when it is closed
            site.wait_until(partial(has, log, "completed in"), message="a new log is written")
            let_files_grow(members, to=resource.RLIM_INFINITY)
            log.with_suffix(".1").replace(log)
            load.work_goes_on(20)
            site.wait_until(partial(is_larger, log, size), message="the log grows again")
        load.finish()
    balance = load.check()
    assert balance.doubled_plain == {}
    assert balance.failed == 0


def let_files_grow(processes: Sequence[Process], *, to: int) -> None:
    """From now on a file that is larger cannot grow, for these processes: as on a full disk, writing to it fails."""
    for process in processes:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (to, resource.RLIM_INFINITY))


def _symbolic_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def _hard_link(path: Path, precious: Path) -> None:
    path.hardlink_to(precious)


def _directory(path: Path, precious: Path) -> None:
    path.mkdir()


def _pipe(path: Path, precious: Path) -> None:
    os.mkfifo(path)


def _no_directory(path: Path, precious: Path) -> None:
    shutil.rmtree(path.parent)


def _read_only_directory(path: Path, precious: Path) -> None:
    """One in which root, too, can make no file."""
    shutil.rmtree(path.parent)
    path.parent.symlink_to("/sys/kernel")


OBSTACLES = [_symbolic_link, _hard_link, _directory, _pipe, _no_directory, _read_only_directory]


@pytest.mark.scenario("F39")
@corners
def test_what_stands_in_the_place_of_the_log_file_is_not_touched_and_tasks_go_on(
    project: ProjectFactory, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    log, precious = site.directory / "log" / "carrot.log", site.directory / "precious"
    log.parent.mkdir()
    precious.write_text("of somebody else\n")
    with running(site, log, detached=broker == "amqp"):
        for obstacle in OBSTACLES:
            log.unlink()
            obstacle(log, precious)
            scenario.fault()
            runs_a_task(site)
            assert precious.read_text() == "of somebody else\n"
            clear(log)
            if log.parent.is_symlink():
                log.parent.unlink()
            log.parent.mkdir(exist_ok=True)
            # What was logged meanwhile went into a file without a name; from here on there is one again.
            line = f"{runs_a_task(site)} completed in"
            site.wait_until(partial(has, log, line), message="the log goes on")
    assert site.sql("SELECT DISTINCT status, tries FROM carrot_messagelog") == [{"status": "COMPLETED", "tries": 1}]


@pytest.mark.scenario("F39")
@corners
def test_a_log_file_that_takes_nothing_from_the_beginning_stops_nothing(
    project: ProjectFactory, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    (site.directory / "chatty.py").write_text("import sys\ndef talk(): print('out'); sys.stderr.write('err')\n")
    scenario.fault()
    with running(site, Path("/dev/full"), detached=broker == "amqp"):
        runs_a_task(site)
        site.publish("chatty.talk")
        invariants.wait_for_rest(site)
    found = site.sql("SELECT DISTINCT status, tries, exception FROM carrot_messagelog")
    assert found == [{"status": "COMPLETED", "tries": 1, "exception": ""}]


@pytest.mark.scenario("F39")
@corners
def test_what_stands_in_the_place_of_the_pid_file_of_a_running_daemon_is_not_touched(
    project: ProjectFactory, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    pidfile, precious = site.directory / "carrot.pid", site.directory / "precious"
    stranger = f"{os.getpid()}\n"  # a process that is no service
    precious.write_text(stranger)
    words = ["--pidfile", str(pidfile), "--logfile", str(site.directory / "carrot.log")]
    site.manage("carrot_daemon", "start", *words)
    process = Process.of(int(pidfile.read_text()))
    assert process is not None
    for obstacle in (_directory, _hard_link, _symbolic_link):
        clear(pidfile)
        obstacle(pidfile, precious)
        scenario.fault()
        for mode in ("stop", "start"):
            done = site.manage("carrot_daemon", mode, *words, check=False)
            assert done.returncode != 0, done.stdout
            assert "Traceback" not in done.stdout
            assert str(pidfile) in done.stdout
        runs_a_task(site)
    process.signal(signal.SIGTERM)
    site.wait_until(lambda: not site.processes(), 60.0, "the daemon has ended")
    assert pidfile.readlink() == precious
    assert precious.read_text() == stranger
    assert site.sql("SELECT DISTINCT status FROM carrot_messagelog") == [{"status": "COMPLETED"}]


@contextmanager
def running(site: Project, log: Path, *, detached: bool) -> Iterator[None]:
    """A service with this log file, in the foreground or as a daemon, that in the end stops in order."""
    if not detached:
        service = site.service("--logfile", log)
        service.wait_ready()
        yield
        assert service.stop() == 0, service.output()
        return
    words = ["--pidfile", "carrot.pid", "--logfile", str(log)]
    site.manage("carrot_daemon", "start", *words)
    yield
    site.manage("carrot_daemon", "status", *words)
    site.manage("carrot_daemon", "stop", *words)
    site.wait_until(lambda: not site.processes(), message="the daemon has ended")


def runs_a_task(site: Project) -> str:
    """Publish a task, and wait until it is COMPLETED; return how the log names it."""
    key = site.publish("tests.app.tasks.noop")
    site.wait_until(f"SELECT status = 'COMPLETED' FROM carrot_messagelog WHERE id = {key}")
    (row,) = site.sql("SELECT task, uuid FROM carrot_messagelog WHERE id = %s", [key])
    return f"{row['task']} {uuid.UUID(str(row['uuid']))}"


def has(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


def is_larger(path: Path, size: int) -> bool:
    return path.stat().st_size > size


def clear(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
