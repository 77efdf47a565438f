"""The parts of the daemon that need no daemon; the rest is in tests/acceptance/test_daemon.py."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import BaseCommand, CommandError
from django.test import override_settings

from carrot import daemon, logs
from carrot.conf import QueueSettings, get_settings
from carrot.consumer import Consumer
from carrot.exceptions import ServiceError
from carrot.management.commands.carrot_daemon import Command, with_consumer
from carrot.pidfile import Process


class OwnConsumer(Consumer):
    pass


def queues() -> list[QueueSettings]:
    return list(get_settings().queues.values())


def test_the_mode_is_start_if_it_is_left_out_and_the_paths_are_those_of_1x() -> None:
    options = vars(Command().create_parser("manage.py", "carrot_daemon").parse_args(["--no-scheduler"]))
    assert options["mode"] == "start"
    assert options["no_scheduler"] is True
    assert options["pidfile"] == "/var/run/carrot.pid"
    assert (options["logfile"] or logs.DEFAULT_LOGFILE) == "/var/log/carrot.log"
    assert options["loglevel"] == "DEBUG"
    assert options["hard"] is False


def test_all_options_are_taken_in_their_short_and_long_forms() -> None:
    words = "restart -l a.log -p a.pid --no-scheduler --loglevel info --testmode --processes 3 --queue a --queue b"
    line = [*words.split(), "--consumer-class", "x.Y", "--hard"]
    options = vars(Command().create_parser("manage.py", "carrot_daemon").parse_args(line))
    wanted = {
        "mode": "restart",
        "logfile": "a.log",
        "pidfile": "a.pid",
        "no_scheduler": True,
        "loglevel": "INFO",
        "testmode": True,
        "processes": 3,
        "queue": ["a", "b"],
        "consumer_class": "x.Y",
        "hard": True,
    }
    assert {name: options[name] for name in wanted} == wanted


def test_the_page_describes_every_option_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "service.md").read_text("utf-8")
    table = page.partition("## Options")[2].partition("\n## ")[0]
    described = set(re.findall(r"^\| .*?`(--[a-z-]+)", table, re.MULTILINE))
    of_django = {option for action in BaseCommand().create_parser("", "")._actions for option in action.option_strings}
    parser = Command().create_parser("manage.py", "carrot_daemon")
    ours = {option for action in parser._actions for option in action.option_strings} - of_django
    assert described == {option for option in ours if option.startswith("--")} - {"--skip-checks"}


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice: 'begin'"):
        Command().create_parser("manage.py", "carrot_daemon").parse_args(["begin"])


def test_the_consumer_class_replaces_that_of_every_queue() -> None:
    path = f"{__name__}.OwnConsumer"
    carrot = {
        "default_broker": "database://",
        "queues": [{"name": "a", "consumer_class": "some.Thing"}, {"name": "b", "concurrency": 3}],
    }
    with override_settings(CARROT=carrot):
        replaced = with_consumer(queues(), path)
        assert [(queue.name, queue.consumer_class, queue.concurrency) for queue in replaced] == [
            ("a", path, 1),
            ("b", path, 3),
        ]
        assert with_consumer(queues(), None) == queues()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nowhere.Consumer", r"cannot be imported \(ModuleNotFoundError"),
        ("nowhere", r"cannot be imported \(ImportError"),
        ("tests.unit.test_daemon.queues", "is not a subclass of carrot.consumer.Consumer"),
        ("builtins.dict", "is not a subclass of carrot.consumer.Consumer"),
    ],
)
def test_a_path_to_something_else_is_refused_with_the_option(path: str, why: str) -> None:
    with pytest.raises(CommandError, match=rf"^--consumer-class {path} {why}"):
        with_consumer(queues(), path)


@pytest.fixture
def pipe() -> Iterator[tuple[daemon._Hearing, daemon._Word]]:
    reader, writer = daemon._pipe()
    word = daemon._Word(writer)
    with daemon._Hearing(reader) as hearing:
        yield hearing, word
    word.close()


def test_a_daemon_that_says_nothing_is_not_waited_for_for_ever(pipe: Any) -> None:
    hearing, word = pipe
    assert not hearing.listen(0.05)
    word.introduce()
    assert not hearing.listen(0.05)
    assert hearing.pid == os.getpid()


def test_what_a_daemon_said_is_heard_whole_and_its_end_too(pipe: Any) -> None:
    hearing, word = pipe
    word.introduce()
    word.say("no database ×")
    word.say("too late")
    assert hearing.listen(10.0)
    assert (hearing.pid, hearing.text) == (os.getpid(), "no database ×")


@pytest.mark.parametrize("text", ["", "A service already runs"])
def test_one_that_did_not_become_a_daemon_has_no_pid(pipe: Any, text: str) -> None:
    hearing, word = pipe
    word.say(text)
    assert hearing.listen(10.0, to_the_end=False)
    assert (hearing.pid, hearing.text) == (0, text)


def test_a_daemon_outlives_the_command_that_waited_for_its_word_but_is_not_begun_without_it() -> None:
    reader, writer = daemon._pipe()
    os.close(reader)
    word = daemon._Word(writer)
    with pytest.raises(ServiceError, match="was interrupted"):
        word.introduce()
    word.say("ready")  # no BrokenPipeError


def test_own_files_are_kept_and_inherited_ones_are_not(tmp_path: Path) -> None:
    with open(tmp_path / "own", "w") as own, open(tmp_path / "inherited", "w") as inherited, socket.socket() as server:
        os.set_inheritable(inherited.fileno(), True)
        kept = daemon._own_files()
        assert {own.fileno(), server.fileno()} <= set(kept)
        assert inherited.fileno() not in kept
        assert not {0, 1, 2} & set(kept)


def test_the_grace_is_that_of_the_settings_and_the_usual_one_where_they_are_broken() -> None:
    with override_settings(CARROT={"default_broker": "database://", "grace": 7}):
        assert daemon._grace() == 7
    with override_settings(CARROT={"grace": "long"}):
        assert daemon._grace() == 25


def test_a_process_that_does_not_end_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "STOP_LIMIT", 0.0)
    process = Process.of(os.getpid())
    assert process is not None
    with pytest.raises(ServiceError, match=rf"kill -9 {os.getpid()}"):
        daemon._wait_for_end(process, print, hard=True)
