"""``manage.py carrot_daemon`` as processes: it tells the truth, leaves nothing behind, and cannot be led astray."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import CHECKOUT, Project, ProjectFactory
from tests.servers.process import Process, wait_until

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

Done = subprocess.CompletedProcess[str]
SLEEP = "tests.app.tasks.sleep"
NOBODY = 65534


class Daemon:
    """The command, with its own files in the project's directory."""

    def __init__(self, site: Project) -> None:
        self.site = site
        self.pidfile = site.directory / "carrot.pid"
        self.logfile = site.directory / "carrot.log"

    def __call__(self, *args: str | Path, check: bool = True) -> Done:
        words: list[str | Path] = ["carrot_daemon", *args]
        if not {"-l", "--logfile"} & {str(word) for word in words}:
            words += ["--logfile", self.logfile]
        if not {"-p", "--pidfile"} & {str(word) for word in words}:
            words += ["--pidfile", self.pidfile]
        return self.site.manage(*words, check=check)

    def refused(self, *args: str | Path, code: int = 1) -> str:
        """Run what must fail; return what it said, on one line, and see that no process is left."""
        before = set(self.site.processes())
        done = self(*args, check=False)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        lines = [line for line in done.stdout.splitlines() if line]
        assert len(lines) == 1, done.stdout
        assert wait_until(lambda: set(self.site.processes()) <= before, 10.0)
        return lines[0]

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    @property
    def log(self) -> str:
        return self.logfile.read_text("utf-8")

    def gone(self) -> bool:
        return not self.pidfile.exists() and not self.site.processes()

    def proc(self, name: str) -> Path:
        return Path(f"/proc/{self.pid}/{name}")

    def stat_field(self, number: int) -> int:
        """A field of /proc/PID/stat, counted as in proc(5)."""
        return int(self.proc("stat").read_text().rpartition(")")[2].split()[number - 3])


@pytest.fixture
def daemon(project: ProjectFactory) -> Daemon:
    return Daemon(project(lease=3.0, heartbeat=0.5))


@pytest.fixture
def stranger() -> Iterator[Process]:
    """A process that has nothing to do with carrot."""
    child = subprocess.Popen(["sleep", "300"])
    process = Process.of(child.pid)
    assert process is not None
    yield process
    child.kill()
    child.wait()


# -- start, status, restart, stop -------------------------------------------------------------------------------------


def test_a_started_service_is_ready_and_works_and_stops_without_a_trace(daemon: Daemon) -> None:
    done = daemon("start")
    assert re.search(rf"carrot has started: process {daemon.pid}, log file {daemon.logfile}, pid file", done.stdout)
    assert "carrot is ready" in daemon.log  # by the time the command ends
    key = daemon.site.publish("tests.app.tasks.add", 1, 2)
    daemon.site.wait_until(f"SELECT status = 'COMPLETED' FROM carrot_messagelog WHERE id = {key}")
    assert "carrot has stopped." in daemon("stop").stdout
    assert daemon.gone()
    assert "carrot has stopped." in daemon.log


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_it_consumes_from_rabbitmq(project: ProjectFactory, database: Any) -> None:
    daemon = Daemon(project(database=database, broker="amqp"))
    daemon("start")
    key = daemon.site.publish("tests.app.tasks.add", 1, 2)
    daemon.site.wait_until(f"SELECT status = 'COMPLETED' FROM carrot_messagelog WHERE id = {key}")
    assert daemon("status").returncode == 0
    daemon("stop")
    assert daemon.gone()


def test_status_tells_pid_uptime_processes_queues_and_running_tasks(project: ProjectFactory) -> None:
    daemon = Daemon(project(queues=[{"name": "default", "concurrency": 2}, {"name": "mail"}]))
    daemon("start", "--processes", "2")
    key = daemon.site.publish(SLEEP, 60)
    daemon.site.wait_until(f"SELECT start_time IS NOT NULL FROM carrot_messagelog WHERE id = {key}")
    said = daemon("status").stdout
    assert re.search(rf"carrot is running: process {daemon.pid}, up (\d+ min )?\d+ s, pid file ", said)
    workers = [row["pid"] for row in daemon.site.sql("SELECT pid FROM carrot_workerprocess WHERE alive")]
    found = re.search(r"worker processes: 2 \((\d+), (\d+)\), threads: 6", said)
    assert found is not None, said
    assert sorted(map(int, found.groups())) == sorted(workers)
    assert "queues: default, mail" in said
    assert re.search(rf"running tasks: 1\n  {SLEEP} [0-9a-f-]{{36}} \(\d+ s\)", said)


def test_status_of_what_was_never_started_is_3(daemon: Daemon) -> None:
    done = daemon("status", check=False)
    assert done.returncode == 3
    assert f"carrot is not running: there is no pid file {daemon.pidfile}" in done.stdout


def test_stop_of_what_does_not_run_says_so_and_is_no_error(daemon: Daemon) -> None:
    done = daemon("stop")
    assert "carrot is not running" in done.stdout
    assert "--pidfile" in done.stdout


def test_a_restart_replaces_the_process_and_starts_what_does_not_run(daemon: Daemon) -> None:
    assert "carrot has started" in daemon("restart").stdout
    first = Process.of(daemon.pid)
    assert first is not None
    assert "carrot has started" in daemon("restart").stdout
    assert not first.alive
    assert daemon.pid != first.pid
    assert daemon("status").returncode == 0


@pytest.mark.slow
def test_a_restart_that_cannot_start_again_does_not_stop(daemon: Daemon) -> None:
    daemon("start")
    said = daemon("restart", "--queue", "nonsense", check=False)
    assert said.returncode == 1
    assert "nonsense" in said.stdout
    said = daemon("restart", "--logfile", daemon.site.directory, check=False)
    assert said.returncode == 1
    assert "--logfile" in said.stdout
    assert daemon("status").returncode == 0


def test_a_second_start_is_refused_and_changes_nothing(daemon: Daemon) -> None:
    daemon("start")
    pid, log = daemon.pid, daemon.log
    said = daemon.refused("start")
    assert f"already runs with the pid file {daemon.pidfile} (process {pid})" in said
    assert "--pidfile" in said
    assert daemon.pid == pid
    assert daemon.log == log
    assert daemon("status").returncode == 0


@pytest.mark.slow
def test_of_many_starts_at_once_one_wins(daemon: Daemon) -> None:
    words = ["-m", "django", "carrot_daemon", "-p", str(daemon.pidfile), "-l", str(daemon.logfile)]
    starts = [
        subprocess.Popen(
            [sys.executable, *words], env=daemon.site.env, cwd=daemon.site.directory, stderr=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    assert sorted(start.wait(60) for start in starts) == [0, 1, 1, 1]
    assert daemon("status").returncode == 0
    assert daemon.log.count("carrot is ready") == 1


#: A start whose command is interrupted by Ctrl+C as soon as it waits for the daemon.
INTERRUPTED = """
from carrot import daemon
from django.core.management import call_command

listen = daemon._Hearing.listen

def interrupted(hearing, seconds, *, to_the_end=True):
    if to_the_end:
        raise KeyboardInterrupt
    return listen(hearing, seconds, to_the_end=to_the_end)

daemon._Hearing.listen = interrupted
call_command('carrot_daemon', 'start', '--pidfile', {pidfile!r}, '--logfile', {logfile!r})
"""


def test_a_start_that_is_interrupted_leaves_no_daemon_and_that_of_another_alone(daemon: Daemon) -> None:
    code = INTERRUPTED.format(pidfile=str(daemon.pidfile), logfile=str(daemon.logfile))
    assert "Interrupted" in daemon.site.python(code, check=False).stdout
    daemon.site.wait_until(daemon.gone)
    daemon("start")
    before = daemon.pidfile.read_text()
    assert "Interrupted" in daemon.site.python(code, check=False).stdout
    assert daemon("status").returncode == 0
    assert daemon.pidfile.read_text() == before


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_stop_waits_for_running_tasks_and_names_them(daemon: Daemon) -> None:
    daemon("start")
    key = daemon.site.publish(SLEEP, 3)
    daemon.site.wait_until(f"SELECT start_time IS NOT NULL FROM carrot_messagelog WHERE id = {key}")
    assert f"Waiting for 1 running task: {SLEEP}\n" in daemon("stop").stdout
    assert daemon.site.sql("SELECT status, tries FROM carrot_messagelog") == [{"status": "COMPLETED", "tries": 1}]
    assert daemon.gone()


def test_stop_hard_gives_running_tasks_back_at_once(daemon: Daemon) -> None:
    daemon("start", "--processes", "2")
    key = daemon.site.publish(SLEEP, 90)
    daemon.site.wait_until(f"SELECT start_time IS NOT NULL FROM carrot_messagelog WHERE id = {key}")
    begun = time.monotonic()
    daemon("stop", "--hard")
    assert time.monotonic() - begun < 15.0  # the grace is 25 s
    assert daemon.gone()
    assert daemon.site.sql("SELECT status, crashes FROM carrot_messagelog") == [{"status": "PUBLISHED", "crashes": 0}]


@pytest.mark.slow
def test_restart_hard_runs_the_task_again(daemon: Daemon) -> None:
    daemon("start")
    key = daemon.site.publish(SLEEP, 90)
    started = f"SELECT start_time IS NOT NULL AND fence > %d FROM carrot_messagelog WHERE id = {key}"
    daemon.site.wait_until(started % 0)
    daemon("restart", "--hard")
    daemon.site.wait_until(started % 1)
    daemon("stop", "--hard")


@pytest.mark.slow
def test_stop_and_status_work_without_a_database_and_with_broken_settings(daemon: Daemon) -> None:
    daemon("start")
    daemon.site.env["CARROT_TEST_DATABASE_NAME"] = "/nowhere/db.sqlite3"
    daemon.site.configure(grace="for ever")
    said = daemon("status").stdout
    assert f"carrot is running: process {daemon.pid}" in said
    assert "The database does not answer" in said
    assert "carrot has stopped." in daemon("stop").stdout
    assert daemon.gone()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["start", "status"])
def test_hard_is_for_stop_and_restart_only(daemon: Daemon, mode: str) -> None:
    assert f"--hard goes with stop and restart, not with {mode}" in daemon.refused(mode, "--hard", code=1)


# -- why it cannot start ----------------------------------------------------------------------------------------------


def test_start_says_that_migrations_are_missing(daemon: Daemon) -> None:
    daemon.site.manage("migrate", "carrot", "zero")
    assert "lacks" in (said := daemon.refused("start"))
    assert "run manage.py migrate" in said
    assert not daemon.pidfile.exists()
    assert "run manage.py migrate" in daemon.log


def test_start_says_that_the_database_does_not_answer(daemon: Daemon) -> None:
    daemon.site.env["CARROT_TEST_DATABASE_NAME"] = "/nowhere/db.sqlite3"
    assert "The database “default” does not answer" in daemon.refused("start")
    assert not daemon.pidfile.exists()


def test_start_says_what_is_wrong_in_the_settings(daemon: Daemon) -> None:
    daemon.site.configure(lease="long")
    done = daemon("start", check=False)
    assert done.returncode == 1
    assert 'CARROT["lease"]' in done.stdout
    assert not daemon.pidfile.exists()
    assert not daemon.site.processes()


def test_start_says_that_a_queue_is_unknown(daemon: Daemon) -> None:
    assert 'CARROT["queues"] has: "default"' in daemon.refused("start", "--queue", "defualt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "why"),
    [("json.loads", "is not a subclass of carrot.consumer.Consumer"), ("nowhere.Consumer", "cannot be imported")],
)
def test_a_consumer_class_that_is_none_is_refused(daemon: Daemon, path: str, why: str) -> None:
    assert f"--consumer-class {path} {why}" in daemon.refused("start", "--consumer-class", path)


@pytest.mark.slow
def test_what_does_not_get_ready_in_time_is_stopped_and_said_to_be(daemon: Daemon) -> None:
    (daemon.site.directory / "broken_consumers.py").write_text(
        "from carrot.consumer import Consumer\n"
        "class Broken(Consumer):\n"
        "    def __init__(self, *args):\n"
        "        raise ValueError('no such account')\n"
    )
    paths = f"'--pidfile', {str(daemon.pidfile)!r}, '--logfile', {str(daemon.logfile)!r}"
    done = daemon.site.python(
        "from carrot import daemon\n"
        "from django.core.management import call_command\n"
        "daemon.START_LIMIT = 3.0\n"
        f"call_command('carrot_daemon', 'start', '--consumer-class', 'broken_consumers.Broken', {paths})\n",
        check=False,
    )
    assert "CommandError: The service was not ready within 3 s and is stopped" in done.stdout
    assert "ValueError: no such account" in daemon.log
    daemon.site.wait_until(daemon.gone)


def test_the_consumer_class_of_the_option_consumes_all_queues(daemon: Daemon) -> None:
    (daemon.site.directory / "own_consumers.py").write_text(
        "import logging\n"
        "from carrot.consumer import Consumer\n"
        "class Own(Consumer):\n"
        "    def __init__(self, host, queue, *args, **kwargs):\n"
        "        super().__init__(host, queue, *args, **kwargs)\n"
        "        logging.getLogger('carrot').info('own consumer of %s', queue)\n"
    )
    daemon.site.configure(queues=[{"name": "default"}, {"name": "mail"}])
    daemon("start", "--consumer-class", "own_consumers.Own")
    daemon.site.wait_until(lambda: "own consumer of default" in daemon.log and "own consumer of mail" in daemon.log)


# -- detached ---------------------------------------------------------------------------------------------------------


def _detached(daemon: Daemon) -> None:
    """The daemon is nobody's child, in a session that it does not lead, and has no file of its caller."""
    assert daemon.stat_field(4) != os.getpid()  # its parent
    parent = Path(f"/proc/{daemon.stat_field(4)}/status").read_text()
    assert re.search(r"^PPid:\t0$", parent, re.MULTILINE), "its parent is not the first process"
    session = daemon.stat_field(6)
    assert session not in (daemon.pid, os.getsid(0))
    assert daemon.stat_field(7) == 0  # no terminal
    assert os.readlink(daemon.proc("fd/0")) == "/dev/null"
    assert os.readlink(daemon.proc("fd/1")) == os.readlink(daemon.proc("fd/2")) == str(daemon.logfile)
    names = {os.readlink(link) for link in daemon.proc("fd").iterdir()}
    ours = {name for name in names if name.startswith(("/", "pipe:"))}
    assert ours == {"/dev/null", str(daemon.logfile), str(daemon.pidfile)}


def test_it_is_detached_with_the_umask_and_the_directory_that_were_promised(daemon: Daemon) -> None:
    daemon("start")
    _detached(daemon)
    assert re.search(r"^Umask:\t0077$", daemon.proc("status").read_text(), re.MULTILINE)
    assert os.readlink(daemon.proc("cwd")) == str(daemon.site.directory)
    for path in (daemon.pidfile, daemon.logfile):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _start_by(daemon: Daemon, code: str, **how: Any) -> str:
    """Run ``code`` in a shell, where ``"$@"`` is the command line of a start; return what it wrote into ``$OUT``."""
    words = [sys.executable, "-m", "django", "carrot_daemon", "start", "-p", "carrot.pid", "-l", "carrot.log"]
    script = f"set -- {shlex.join(words)}\n{code}"
    output = daemon.site.directory / "start.out"
    env = {**daemon.site.env, "OUT": str(output)}
    subprocess.run(["sh", "-c", script], env=env, cwd=daemon.site.directory, check=True, timeout=60, **how)
    ended = re.compile(r"^(carrot has started|CommandError|code 0)", re.MULTILINE)
    assert wait_until(lambda: output.exists() and bool(ended.search(output.read_text())), 60.0)
    assert "CommandError" not in output.read_text()
    return output.read_text()


def test_it_detaches_when_its_caller_is_a_child_of_the_first_process(daemon: Daemon) -> None:
    """python-daemon, if it is left to guess, takes a child of that process for one that is detached already."""
    when_orphaned = 'shell=$1; shift; while kill -0 "$shell" 2>/dev/null; do :; done; exec "$@" >"$OUT" 2>&1'
    _start_by(daemon, f"setsid sh -c '{when_orphaned}' sh $$ \"$@\" >/dev/null 2>&1 &")
    _detached(daemon)


def test_it_detaches_when_its_input_is_a_socket(daemon: Daemon) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _start_by(daemon, '"$@" >"$OUT" 2>&1', stdin=theirs)
        _detached(daemon)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"], ids=["no input", "no error output", "neither"])
def test_it_starts_with_closed_streams(daemon: Daemon, closed: str) -> None:
    said = _start_by(daemon, f'"$@" >"$OUT" {closed}; echo "code $?" >>"$OUT"')
    assert "carrot has started" in said
    _detached(daemon)
    assert daemon("stop").returncode == 0


def test_it_starts_with_all_streams_closed(daemon: Daemon) -> None:
    _start_by(daemon, '"$@" <&- >&- 2>&-; echo "code $?" >>"$OUT"')
    _detached(daemon)
    assert "carrot is ready" in daemon.log


def test_what_tasks_and_libraries_print_is_in_the_log(daemon: Daemon) -> None:
    (daemon.site.directory / "chatty.py").write_text(
        "import os, sys\n"
        "def task():\n"
        "    print('printed ×')\n"
        "    sys.stderr.write('complained\\n')\n"
        "    os.system('echo from a shell')\n"
    )
    daemon("start")
    key = daemon.site.publish("chatty.task")
    daemon.site.wait_until(f"SELECT status = 'COMPLETED' FROM carrot_messagelog WHERE id = {key}")
    for words in ("printed ×", "complained", "from a shell"):
        assert f"\n{words}\n" in daemon.log


def test_log_files_of_the_projects_own_logging_stay_open(daemon: Daemon) -> None:
    """DaemonContext closes every file it is not told of; what is written to the number then goes who knows where."""
    (daemon.site.directory / "logged_settings.py").write_text(
        "from tests.settings import *\n"
        "LOGGING = {'version': 1, 'disable_existing_loggers': False,\n"
        "  'handlers': {'own': {'class': 'logging.FileHandler', 'filename': 'own.log'}},\n"
        "  'loggers': {'carrot': {'handlers': ['own'], 'level': 'INFO'}}}\n"
    )
    daemon.site.env["DJANGO_SETTINGS_MODULE"] = "logged_settings"
    daemon("start")
    assert "carrot is ready" in (daemon.site.directory / "own.log").read_text()
    assert "carrot is ready" in daemon.log


def test_a_log_file_that_was_moved_away_is_made_anew(daemon: Daemon) -> None:
    daemon("start")
    daemon.logfile.rename(daemon.site.directory / "carrot.log.1")
    key = daemon.site.publish("tests.app.tasks.add", 1, 2)
    daemon.site.wait_until(f"SELECT status = 'COMPLETED' FROM carrot_messagelog WHERE id = {key}")
    daemon("stop")
    assert "tests.app.tasks.add" in daemon.log
    assert "carrot has stopped." in daemon.log


def test_relative_paths_are_those_of_the_caller(daemon: Daemon) -> None:
    (daemon.site.directory / "run").mkdir()
    daemon("start", "--pidfile", "run/own.pid", "-l", "run/own.log")
    assert "carrot is ready" in (daemon.site.directory / "run/own.log").read_text()
    assert daemon("status", "-p", "run/own.pid").returncode == 0
    assert daemon("stop", "-p", daemon.site.directory / "run/own.pid").returncode == 0
    assert not (daemon.site.directory / "run/own.pid").exists()


def test_the_loglevel_counts_and_testmode_ends_by_itself(daemon: Daemon) -> None:
    key = daemon.site.publish("tests.app.tasks.add", 1, 2)
    daemon("start", "--testmode", "--loglevel", "warning")
    daemon.site.wait_until(daemon.gone)
    assert daemon.site.sql(f"SELECT status FROM carrot_messagelog WHERE id = {key}") == [{"status": "COMPLETED"}]
    assert daemon.log == ""


# -- pid files that lie -----------------------------------------------------------------------------------------------


def test_after_a_kill_status_is_1_and_it_starts_again(daemon: Daemon) -> None:
    daemon("start", "--processes", "2")
    key = daemon.site.publish(SLEEP, 60)  # keeps its worker for some seconds after the master's death
    daemon.site.wait_until(f"SELECT start_time IS NOT NULL FROM carrot_messagelog WHERE id = {key}")
    old = daemon.pid
    os.kill(old, signal.SIGKILL)
    daemon.site.wait_until(lambda: Process.of(old) is None)
    done = daemon("status", check=False)
    assert done.returncode == 1
    assert f"carrot is dead: process {old} has ended" in done.stdout
    daemon("start")  # at once: workers of the dead master that are still about do not hold the file
    assert daemon.pid != old
    assert daemon("status").returncode == 0
    daemon("stop", "--hard")
    daemon.site.wait_until(daemon.gone)


def test_stop_of_a_dead_one_clears_its_file(daemon: Daemon) -> None:
    daemon.pidfile.write_text("999999999\n")
    said = daemon("stop").stdout
    assert "process 999999999 has ended" in said
    assert not daemon.pidfile.exists()


def test_a_pid_that_belongs_to_a_stranger_now_is_never_signalled(daemon: Daemon, stranger: Process) -> None:
    daemon.pidfile.write_text(f"{stranger.pid}\n")
    assert daemon("status", check=False).returncode == 1
    daemon("stop", "--hard")
    assert stranger.alive
    daemon.pidfile.write_text(f"{stranger.pid}\n")
    daemon("start")
    assert stranger.alive
    assert daemon.pid != stranger.pid
    assert daemon("status").returncode == 0


@pytest.mark.slow
def test_a_file_that_a_stranger_has_locked_gets_nobody_signalled(daemon: Daemon, stranger: Process) -> None:
    daemon.pidfile.write_text(f"{stranger.pid}\n")
    with open(daemon.pidfile) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "not the one it names" in daemon.refused("stop", "--hard")
        assert "not the one it names" in daemon.refused("status", code=4)
        assert "already runs" in daemon.refused("start")
    assert stranger.alive


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["start", "stop", "restart", "status"])
@pytest.mark.parametrize("target", ["missing", "precious"])
def test_a_symbolic_link_is_never_followed(daemon: Daemon, mode: str, target: str) -> None:
    precious = daemon.site.directory / "precious"
    precious.write_text("1\n")
    daemon.pidfile.symlink_to(daemon.site.directory / target)
    said = daemon.refused(mode, code=4 if mode == "status" else 1)
    assert f"The pid file {daemon.pidfile} cannot be" in said
    assert "symbolic link" in said
    assert "--pidfile" in said
    assert precious.read_text() == "1\n"
    assert not (daemon.site.directory / "missing").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away; tests/unit/test_trusted_file.py")
@pytest.mark.parametrize("mode", ["start", "stop", "status"])
def test_a_pid_file_of_another_user_is_not_believed(daemon: Daemon, mode: str) -> None:
    daemon.pidfile.write_text("1\n")
    os.chown(daemon.pidfile, NOBODY, NOBODY)
    said = daemon.refused(mode, code=4 if mode == "status" else 1)
    assert f"The pid file {daemon.pidfile} belongs to the user" in said
    assert daemon.pidfile.read_text() == "1\n"


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _missing_directory(path: Path) -> None:
    path.symlink_to("no/such/directory/file")


@pytest.mark.slow
@pytest.mark.parametrize("make", [_directory, _fifo, _missing_directory])
@pytest.mark.parametrize(("option", "name"), [("--pidfile", "pid file"), ("--logfile", "log file")])
def test_a_path_that_cannot_be_written_is_named_with_its_option(
    daemon: Daemon, make: Callable[[Path], None], option: str, name: str
) -> None:
    path = daemon.site.directory / "odd"
    make(path)
    said = daemon.refused("start", option, path)
    assert f"The {name} {path}" in said
    assert option in said
    other = daemon.site.directory / "no" / "such" / "odd"
    said = daemon.refused("start", option, other)
    assert f"The {name} {other} cannot be written" in said
    assert option in said


@pytest.mark.slow
def test_a_directory_where_everybody_may_exchange_the_file_is_refused_but_one_like_tmp_is_not(daemon: Daemon) -> None:
    shared = daemon.site.directory / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert "everybody may exchange it" in daemon.refused("start", "--pidfile", shared / "carrot.pid")
    shared.chmod(0o1777)
    daemon("start", "--pidfile", shared / "carrot.pid")
    assert daemon("stop", "--pidfile", shared / "carrot.pid").returncode == 0


@pytest.mark.slow
def test_a_pid_file_removed_under_a_running_service_does_not_lead_astray(daemon: Daemon) -> None:
    daemon("start")
    process = Process.of(daemon.pid)
    assert process is not None
    daemon.pidfile.unlink()
    assert daemon("status", check=False).returncode == 3
    daemon("start")
    other = daemon.pid
    process.signal(signal.SIGTERM)  # the first one ends, and leaves the file of the other alone
    assert wait_until(lambda: not process.alive, 30.0)
    assert daemon.pid == other
    assert daemon("status").returncode == 0


# -- every command line of the documentation --------------------------------------------------------------------------

#: Those of 1.x, word for word, in an order in which they can be given.
LINES = [
    "python manage.py carrot_daemon start",
    "python manage.py carrot_daemon status",
    "python manage.py carrot_daemon restart",
    "python manage.py carrot_daemon stop",
    "python manage.py carrot_daemon --no-scheduler",
    "python manage.py carrot_daemon stop",
]
OWN_PATHS = [
    "python manage.py carrot_daemon start --logfile carrot.log --pidfile carrot.pid",
    "python manage.py carrot_daemon status --pidfile carrot.pid",
    "python manage.py carrot_daemon restart --logfile carrot.log --pidfile carrot.pid",
    "python manage.py carrot_daemon stop --pidfile carrot.pid",
]
DEFAULTS = [Path("/var/run/carrot.pid"), Path("/var/log/carrot.log")]


@pytest.fixture
def shell(daemon: Daemon) -> Callable[[str], Done]:
    """Runs a line as a user types it, in a directory with a manage.py."""
    (daemon.site.directory / "manage.py").write_text(
        "from django.core.management import execute_from_command_line\n"
        "import sys\n"
        "if __name__ == '__main__':\n"
        "    execute_from_command_line(sys.argv)\n"
    )
    env = {**daemon.site.env, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}

    def run(line: str) -> Done:
        return subprocess.run(
            line,
            shell=True,
            env=env,
            cwd=daemon.site.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.slow
def test_the_command_lines_with_default_paths(daemon: Daemon, shell: Callable[[str], Done]) -> None:
    if any(path.exists() for path in DEFAULTS):
        pytest.skip(f"this machine has files of its own: {DEFAULTS}")
    if not all(os.access(path.parent, os.W_OK) for path in DEFAULTS):
        done = shell(LINES[0])
        assert done.returncode == 1
        assert re.search("--(logfile|pidfile)", done.stderr)
        _in_the_foreground(daemon)
        return
    try:
        for line in LINES:
            done = shell(line)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            assert DEFAULTS[0].exists() == (not line.endswith("stop")), line
            assert DEFAULTS[1].exists()
        _in_the_foreground(daemon)
    finally:
        shell("python manage.py carrot_daemon stop --hard")
        for path in DEFAULTS:
            path.unlink(missing_ok=True)


def _in_the_foreground(daemon: Daemon) -> None:
    """``python manage.py carrot``, and Ctrl+C."""
    command = [sys.executable, "manage.py", "carrot"]
    output = daemon.site.directory / "foreground.out"
    with open(output, "wb") as file:
        child = subprocess.Popen(command, env=daemon.site.env, cwd=daemon.site.directory, stdout=file, stderr=file)
    try:
        assert wait_until(lambda: "carrot is ready" in output.read_text(), 30.0), output.read_text()
        child.send_signal(signal.SIGINT)
        assert child.wait(40.0) == 0
        assert not DEFAULTS[0].exists()
    finally:
        child.kill()
        child.wait()


def test_every_command_line_of_the_page_is_tried_here() -> None:
    page = (CHECKOUT / "docs" / "service.md").read_text("utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"`(python manage\.py carrot[^`]*)`", page)
    assert set(lines) - {"python manage.py carrot"} == {*LINES, *OWN_PATHS}


@pytest.mark.slow
def test_the_command_lines_with_own_paths(daemon: Daemon, shell: Callable[[str], Done]) -> None:
    for line in OWN_PATHS:
        done = shell(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert daemon.log.count("carrot is ready") == 2


def test_the_command_in_the_foreground_takes_no_pid_file_and_no_mode(shell: Callable[[str], Done]) -> None:
    for words in ("--pidfile carrot.pid", "start"):
        done = shell(f"python manage.py carrot {words}")
        assert done.returncode == 2
        assert "unrecognized arguments" in done.stderr


@pytest.mark.slow
def test_the_command_in_the_foreground_speaks_makes_no_pid_file_and_ends_at_ctrl_c(daemon: Daemon) -> None:
    service = daemon.site.service()
    service.wait_ready()
    service.send(signal.SIGINT)
    assert service.wait(40.0) == 0
    assert not list(daemon.site.directory.glob("*.pid"))
    assert "carrot has stopped." in service.output()
