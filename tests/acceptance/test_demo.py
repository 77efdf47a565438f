"""``scripts/demo`` as people run it: in a copy of the checkout, in a path with spaces."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.servers.process import free_ports, wait_until
from tests.service import marked_processes

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ("carrot", "demo", "scripts", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
#: Seconds until a demo runs: its first start makes an environment.
START = 180.0
ALL_IS_WELL = "Every task, every page and every step is as it should be."
#: What --check has to do in the monitor and with the daemon, as its tables call it.
STEPS = (
    *("find two failures by function and argument", "select both, choose Requeue: it asks first"),
    *("confirm: both are requeued, and complete", "select all, choose Delete: it asks first"),
    *("confirm: both are deleted, and no other", "a form without its CSRF token is refused"),
    *("a schedule with broken JSON is not taken", "a schedule for every second is made", "its task completes"),
    *("somebody without permission is shown nothing", "and is refused its pages", "and every change"),
    *("and requeues none, by action or button", "it starts", "it runs, and says what"),
    *("it restarts, as another process", "it stops, with its process and its pid file", "it does not run any more"),
)


class Run:
    """One run of the script, with everything it starts known by a marker in the environment."""

    def __init__(self, script: Path, output: Path, *words: str) -> None:
        self._marker = f"SCRATCH_DEMO={uuid.uuid4().hex}"
        self._output = output
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARROT_", "DJANGO_"))}
        # A version manager's command for a version that is not there comes first on the PATH.
        shims = script.parent.parent / "shims"
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [script, *words],
                cwd=output.parent,
                env={**kept, "PATH": f"{shims}:{kept['PATH']}", "SCRATCH_DEMO": self._marker.partition("=")[2]},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self._output.read_text("utf-8")

    def wait(self, timeout: float = START) -> int:
        """Return the exit code."""
        return self._process.wait(timeout)

    def wait_for(self, pattern: str, timeout: float = START) -> re.Match[str]:
        """Wait until the output matches; fails the test if the run ends before."""
        assert wait_until(lambda: self._process.poll() is not None or bool(re.search(pattern, self.output())), timeout)
        found = re.search(pattern, self.output())
        assert found is not None, self.output()
        return found

    def signal_group(self, number: int) -> None:
        """As a terminal does: to every process of the foreground group."""
        os.killpg(self._process.pid, number)

    def processes(self) -> list[int]:
        return [process.pid for process in marked_processes(self._marker)]

    def end(self) -> None:
        """Whatever the test found, nothing stays behind."""
        while left := marked_processes(self._marker):
            for process in left:
                process.kill()
            self._process.poll()
            time.sleep(0.02)
        self._process.wait(10.0)


Demo = Callable[..., Run]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("demo") / "a path with spaces"
    ignored = shutil.ignore_patterns("__pycache__", ".state", "*.egg-info")
    for part in PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, copy / part, ignore=ignored)
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(CHECKOUT / part, copy / part)
    shim = copy / "shims" / "python3.20"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\necho "python3.20: command not found" >&2\nexit 127\n')
    shim.chmod(0o755)
    return copy


@pytest.fixture
def demo(checkout: Path, tmp_path: Path) -> Iterator[Demo]:
    runs: list[Run] = []

    def start(*words: str) -> Run:
        runs.append(Run(checkout / "scripts" / "demo", tmp_path / f"output-{len(runs)}", *words))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


def answers(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


@pytest.mark.slow
def test_the_check_finds_every_task_and_page_as_it_should_be_and_leaves_nothing_behind(
    demo: Demo, checkout: Path
) -> None:
    before = sorted(path.name for path in checkout.iterdir())
    run = demo("--check", "--port", str(free_ports(1)[0]))
    assert run.wait() == 0, run.output()
    output = run.output()
    assert ALL_IS_WELL in output
    assert "on the embedded broker; 31 tasks were published" in output
    for name in ("survey", "count_words", "checksum", "write_report", "largest", "name_characters"):
        assert re.search(rf"library\.tasks\.{name} .* Completed .* as it should be", output), output
    assert re.search(r"library\.tasks\.fail_on_purpose .* Failed .* as it should be", output)
    assert re.search(r"carrot's index +/admin/carrot/ +200 .* as it should be", output)
    assert re.search(r"own site: index +/carrot/ +200 .* as it should be", output)
    for step in STEPS:
        assert re.search(rf"^{re.escape(step)} .* as it should be$", output, re.MULTILINE), step
    assert run.processes() == []
    assert sorted(path.name for path in checkout.iterdir()) == before
    assert not list((checkout / "carrot").rglob("__pycache__"))


@pytest.mark.slow
def test_the_check_passes_on_rabbitmq(demo: Demo, amqp_url: str) -> None:
    run = demo("--check", "--broker", amqp_url, "--port", str(free_ports(1)[0]))
    assert run.wait() == 0, run.output()
    assert ALL_IS_WELL in run.output()
    assert "RabbitMQ at amqp://guest:***@127.0.0.1" in run.output()
    assert run.processes() == []


@pytest.mark.slow
def test_the_check_fails_and_names_the_task_and_the_step_where_a_result_is_wrong(demo: Demo, checkout: Path) -> None:
    tasks = checkout / "demo" / "library" / "tasks.py"
    original = tasks.read_text("utf-8")
    changed = original
    for right, wrong in (("digest.hexdigest()", "digest.hexdigest()[::-1]"), ("sum(1 for", "sum(2 for")):
        assert changed.count(f"return {right}") == 1
        changed = changed.replace(f"return {right}", f"return {wrong}")
    tasks.write_text(changed, "utf-8")
    try:
        run = demo("--check", "--port", str(free_ports(1)[0]))
        assert run.wait() == 1
    finally:
        tasks.write_text(original, "utf-8")
    assert ALL_IS_WELL not in run.output()
    assert re.search(r"- library\.tasks\.checksum\('\w+\.py', algorithm='sha256'\): its output is wrong", run.output())
    # Only ten problems are repeated at the end; the tables have all.
    for told in (
        r"confirm: both are requeued, and complete .* the output of task \d+ is 2",
        r"its task completes .* wrong",
    ):
        assert re.search(f"^{told}", run.output(), re.MULTILINE), run.output()
    assert "select all, choose Delete" not in run.output()  # those after a wrong step are left out,
    assert re.search(r"^and every change .* as it should be$", run.output(), re.MULTILINE)  # and the rest is done
    assert run.processes() == []


@pytest.mark.slow
def test_a_check_that_is_interrupted_leaves_no_daemon(demo: Demo, checkout: Path) -> None:
    run = demo("--check", "--port", str(free_ports(1)[0]))
    sites = checkout / "demo" / ".state" / "sites"
    assert wait_until(lambda: bool(list(sites.glob("*/daemon.pid"))), START), run.output()
    run.signal_group(signal.SIGINT)
    assert run.wait(60.0) == 130, run.output()
    assert run.processes() == []
    assert not list(sites.glob("*/daemon.pid"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_stays_until_a_signal_and_then_ends_with_everything_it_started(
    demo: Demo, number: signal.Signals
) -> None:
    run = demo("--port", str(free_ports(1)[0]))
    url = run.wait_for(r"http://127\.0\.0\.1:\d+/admin/carrot/")[0]
    run.wait_for(r"Ctrl\+C ends everything\.")
    assert answers(url)
    assert len(run.processes()) >= 4  # the demo, the site, and the service with its workers
    run.signal_group(number)
    assert run.wait(60.0) == 0, run.output()
    assert run.processes() == []
    assert not answers(url)


@pytest.mark.slow
def test_a_second_run_uses_the_environment_and_the_account_again(demo: Demo) -> None:
    port = str(free_ports(1)[0])
    accounts = []
    for _ in range(2):
        run = demo("--port", port)
        accounts.append(run.wait_for(r"user (\w+), password (\S+)").groups())
        run.signal_group(signal.SIGINT)
        assert run.wait(60.0) == 0, run.output()
    assert accounts[0] == accounts[1]
    assert "Making an environment" not in run.output()


@pytest.mark.slow
def test_two_demos_run_side_by_side_and_a_taken_port_gives_way_to_the_next_free_one(demo: Demo) -> None:
    port = free_ports(1)[0]
    first = demo("--port", str(port))
    first.wait_for(rf"http://127\.0\.0\.1:{port}/admin/carrot/\n")
    second = demo("--check", "--port", str(port))
    assert second.wait() == 0, second.output()
    found = re.search(rf"Port {port} is taken; the site is on port (\d+)", second.output())
    assert found is not None
    assert int(found[1]) > port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def web_port() -> Iterator[int]:
    """A server that is no broker."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(8)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def fails_within_ten_seconds(demo: Demo, url: str) -> str:
    begun = time.monotonic()
    run = demo("--check", "--broker", url)
    assert run.wait(30.0) == 1
    assert time.monotonic() - begun < 10.0
    output = run.output()
    assert "s3cret" not in output
    assert run.processes() == []
    return output


def test_a_broker_that_nobody_runs_is_told_at_once_with_its_url_masked(demo: Demo) -> None:
    port = free_ports(1)[0]
    output = fails_within_ten_seconds(demo, f"amqp://me:s3cret%40@127.0.0.1:{port}/site")
    assert output == (
        f"scripts/demo: The broker amqp://me:***@127.0.0.1:{port}/site is not reached (connection refused): "
        "start it, or correct --broker.\n"
    )


def test_a_broker_that_says_nothing_is_given_up(demo: Demo, silent_port: int) -> None:
    assert f"amqp://me:***@127.0.0.1:{silent_port} is not reached" in fails_within_ten_seconds(
        demo, f"amqp://me:s3cret@127.0.0.1:{silent_port}"
    )


def test_a_server_that_is_no_broker_is_recognized(demo: Demo, web_port: int) -> None:
    assert "what answers there is no AMQP broker" in fails_within_ten_seconds(
        demo, f"amqp://me:s3cret@127.0.0.1:{web_port}/"
    )


def test_an_unencoded_password_of_a_wrong_url_is_not_shown(demo: Demo) -> None:
    assert "amqp://user:password@host:5672/vhost" in fails_within_ten_seconds(demo, "http://me:s3cret/s3cret@host")


@pytest.mark.slow
def test_a_broker_that_refuses_the_password_is_told(demo: Demo, checkout: Path, amqp_url: str) -> None:
    assert demo("--check", "--port", str(free_ports(1)[0])).wait() == 0  # there is an environment now
    output = fails_within_ten_seconds(demo, amqp_url.replace("guest:guest", "guest:s3cret"))
    assert "cannot be used (user or password was refused): correct --broker." in output


def test_the_launcher_needs_the_standard_library_alone(checkout: Path) -> None:
    # -S leaves out site-packages: what a fresh machine has.
    command = [sys.executable, "-S", "-m", "launcher", "--help"]
    done = subprocess.run(command, cwd=checkout / "demo", capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "--check" in done.stdout


def test_a_form_is_sent_as_a_browser_sends_it(checkout: Path) -> None:
    html = """
        <form action="?a=1"><input name="outside"></form>
        <form method="post"><input type="hidden" name="key" value="1"><input type="hidden" name="key" value="2">
        <input type="checkbox" name="on" checked><input type="checkbox" name="off" value="x">
        <input type="submit" name="pressed"><input name="text" value="a&amp;b">
        <select name="list"><option value="">-</option><optgroup><option value="b" selected>B</optgroup></select>
        <select name="first"><option value="c">C</option><option value="d">D</option></select>
        <textarea name="json">\n[&quot;Æ&quot;]\n</textarea></form>
    """
    code = (
        "import sys\nfrom launcher.pages import read_page\n"
        "page = read_page('http://here/path?q=1', 200, 0.0, sys.argv[1])\n"
        "form = page.form('key')\nprint([form.action, form.fields, form.offers, page.form('outside').action])\n"
        "print(form.filled_in({'key': ['3', '4'], 'text': 'new'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, html],
        cwd=checkout / "demo",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    read, filled = done.stdout.splitlines()
    assert ast.literal_eval(read) == [
        "/path?q=1",
        (
            *(("key", "1"), ("key", "2"), ("on", "on"), ("text", "a&b")),
            *(("list", "b"), ("first", "c"), ("json", '["Æ"]\n')),
        ),
        {"on": ("on",), "off": ("x",), "list": ("", "b"), "first": ("c", "d")},
        "/path?a=1",
    ]
    assert ast.literal_eval(filled) == [
        *(("on", "on"), ("list", "b"), ("first", "c"), ("json", '["Æ"]\n')),
        *(("key", "3"), ("key", "4"), ("text", "new")),
    ]


def test_what_cannot_be_kept_in_the_checkout_is_kept_in_the_users_cache(checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "checkout"
    (other / "demo").mkdir(parents=True)
    (other / "demo" / ".state").touch()  # in the way of the directory, as missing rights would be for others than root
    code = "import sys, pathlib\nfrom launcher.state import find_state\nprint(find_state(pathlib.Path(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, other],
        cwd=checkout / "demo",
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    state = Path(done.stdout.strip())
    assert state == tmp_path / "cache" / "django-carrot-demo"
    assert state.stat().st_mode & 0o777 == 0o700
