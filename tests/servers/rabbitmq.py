"""A private RabbitMQ server with its own epmd (Erlang's port mapper)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.servers import process
from tests.servers.install import SEARCH_PATH, rabbitmq_programs
from tests.servers.process import Process, ServerError

NODE = "carrot@localhost"  # names are told apart by the private epmd
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


class RabbitMQ:
    """One private RabbitMQ node, its data under ``base``; only its loopback AMQP listener, no plugins.

    Two objects on the same ``base`` are two handles of the same server: what one started the other may stop.
    """

    def __init__(self, base: Path, node: str = NODE, beside: RabbitMQ | None = None) -> None:
        """``beside``: a node that was started before, whose epmd and cookie this one shares: they can be a cluster."""
        self.node = node
        self._beside = beside
        self.directory = base / "rabbitmq"
        self.log = self.directory / "log" / "server.log"
        self._console = self.directory / "console.log"
        self._state = self.directory / "state.json"

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self, timeout: float = 90.0) -> None:
        """Start the server and wait until it takes connections; resume a suspended one; nothing happens if it runs.

        Keeps ports and data of an earlier start. Raises ServerError, with the end of the log.
        """
        if self.is_running():
            if not self._answers():
                self.resume()
            return
        if not self._state.exists():
            self._create()
        epmd = self._process("epmd")  # lives on where the node ended by itself
        own_epmd = self._beside is None and (epmd is None or not epmd.alive)
        for purpose in ("port", "distribution_port", *(["epmd_port"] if own_epmd else [])):
            if not process.is_free(self._read()[purpose]):
                raise ServerError(
                    f"Port {self._read()[purpose]} of this RabbitMQ server is taken by another program; stop that one."
                )
        process.write_file(self._console, "", None)
        if own_epmd:
            self._launch("epmd", [_epmd(), "-address", "127.0.0.1"])
        self._launch("server", [rabbitmq_programs() / "rabbitmq-server"])
        process.wait_until(lambda: not self.is_running() or self._answers(), timeout)
        if not self._answers():
            found = f"takes no connections after {timeout:g} s" if self.is_running() else "ended"
            self.kill()
            raise ServerError(f"RabbitMQ {found}.\n{self._end_of_logs()}")

    def stop(self, timeout: float = 60.0) -> None:
        """Stop the server in order, and its epmd."""
        if self.is_running():
            self.ctl("shutdown", "--timeout", f"{timeout:.0f}", timeout=timeout + 10)
            if not process.wait_until(lambda: not self.is_running(), timeout):
                raise ServerError(f"RabbitMQ did not stop within {timeout:g} s.\n{process.excerpt(self.log)}")
        self.kill()  # epmd

    def kill(self, timeout: float = 10.0) -> None:
        """Crash the server: SIGKILL to all its processes, and to its epmd. The next start recovers what was on disk."""
        for name in ("server", "epmd"):
            leader = self._process(name)
            if leader is None or not leader.alive:
                continue
            # Looked up again after every round: the shell script may have been starting the node at that moment.
            deadline = time.monotonic() + timeout
            while members := process.session_members(leader.pid):
                for member in members:
                    member.kill()
                if time.monotonic() > deadline:
                    raise ServerError(f"Processes of RabbitMQ survive SIGKILL: {[each.pid for each in members]}")
                time.sleep(process.POLL)
        process.reap()

    def suspend(self) -> None:
        """Stop the broker application, not its process: connections are closed, new ones refused."""
        self.ctl("stop_app")

    def resume(self) -> None:
        """Start the broker application again and wait until it takes connections."""
        self.ctl("start_app")
        if not process.wait_until(self._answers, 30.0):
            raise ServerError(f"RabbitMQ takes no connections after start_app.\n{process.excerpt(self.log)}")

    def remove(self) -> None:
        """Crash the server, if it runs, and delete its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def is_running(self) -> bool:
        """Does the server process started by ``start`` live? (The broker in it may be suspended.)"""
        return "server" in self._read() and self.main_process().alive

    def main_process(self) -> Process:
        """Return the server process started last, the parent of all the others."""
        return Process(**self._read()["server"])

    # -- use ------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return int(self._read()["port"])

    @property
    def url(self) -> str:
        """The default virtual host ``/`` of this server, as a URL with user and password (an administrator)."""
        return self.url_of("%2f")

    def url_of(self, name: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{name}"

    def ctl(self, *words: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` (which takes a second or two) and return what it printed."""
        return self._call([rabbitmq_programs() / "rabbitmqctl", "--quiet", *words], timeout)

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression, without the final dot, inside the server; return the value's text.

        Much faster than ``ctl`` where Erlang's ``erl_call`` is installed.
        """
        erl_call = _erl_call()
        if erl_call is None:
            return self.ctl("eval", f"{expression}.").strip()
        command: list[str | Path] = [erl_call, "-sname", self.node, "-e"]
        try:
            printed = self._call(command, 30.0, stdin=f"{expression}.\n")
        except ServerError as error:
            if "failed to connect" not in str(error):
                raise
            # Now and then erl_call is not let in, for a name it takes; nothing was evaluated then.
            return self.ctl("eval", f"{expression}.").strip()
        found = re.fullmatch(r"\{ok, (.*)\}", printed.strip(), re.DOTALL)
        if not found:
            raise ServerError(f"Evaluating {expression} in RabbitMQ: {printed}")
        return found.group(1)

    def add_vhost(self, name: str) -> str:
        """Create a virtual host with full rights for the user of ``url``; return its URL."""
        self.evaluate(
            f'rabbit_vhost:add(<<"{_checked(name)}">>, <<"tests">>),'
            f' rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>,'
            ' <<"tests">>)'
        )
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with its queues, and close the connections to it; nothing happens if there is none."""
        self.evaluate(
            f'case rabbit_vhost:exists(<<"{_checked(name)}">>) of'
            f' true -> rabbit_vhost:delete(<<"{name}">>, <<"tests">>); false -> ok end'
        )

    def close_all_connections(self, reason: str, vhost: str | None = None) -> None:
        """Close the clients' connections, as an administrator would; all of them or those to one virtual host."""
        only = f', V =:= <<"{_checked(vhost)}">>' if vhost else ""
        self.evaluate(
            f"[rabbit_networking:close_connection(P, <<{json.dumps(reason)}>>) ||"
            f" [{{pid, P}}, {{vhost, V}}] <- rabbit_networking:connection_info_all([pid, vhost]){only}]"
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    @cached_property
    def _account(self) -> process.Account | None:
        return process.unprivileged_account("rabbitmq", "nobody")

    def _create(self) -> None:
        process.make_directory(self.directory, self._account, mode=0o755)
        for name in ("data", "log", "conf.d", "generated"):
            process.make_directory(self.directory / name, self._account)
        port, distribution_port, epmd_port = process.free_ports(3)
        cookie = secrets.token_hex(20)
        if self._beside is not None:
            epmd_port = self._beside._read()["epmd_port"]
            cookie = (self._beside.directory / ".erlang.cookie").read_text()
        process.write_file(self.directory / ".erlang.cookie", cookie, self._account, mode=0o400)
        configuration = f"listeners.tcp.1 = 127.0.0.1:{port}\n"
        process.write_file(self.directory / "rabbitmq.conf", configuration, self._account)
        process.write_file(self.directory / "advanced.config", "[].\n", self._account)
        process.write_file(self.directory / "enabled_plugins", "[].\n", self._account)
        process.write_file(self.directory / "rabbitmq-env.conf", "", self._account)
        state = {"port": port, "distribution_port": distribution_port, "epmd_port": epmd_port}
        process.write_file(self._state, json.dumps(state), None)

    def _launch(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a long-lived process in its own session, and remember it in the state file."""
        server = process.launch(
            command, env=self._environment(), account=self._account, cwd=self.directory, log=self._console
        )
        state = self._read() | {name: {"pid": server.pid, "started": server.started}}
        process.write_file(self._state, json.dumps(state), None)

    def _environment(self) -> dict[str, str]:
        """Return a clean environment: no RABBITMQ_* or ERL_* variable or file of the machine may redirect us."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RABBITMQ_", "ERL_", "LC_", "LANG"))
        }
        state = self._read()
        here = self.directory
        return kept | {
            "PATH": SEARCH_PATH,
            "HOME": str(here),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "ERL_EPMD_PORT": str(state["epmd_port"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(state["distribution_port"]),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_HOME_DIR": str(here),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_LOGS": str(self.log),
            "RABBITMQ_PID_FILE": str(here / "data" / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(here / "conf.d" / "*.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(here / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
        }

    def _end_of_logs(self) -> str:
        """Return what this start printed (what is wrong comes first, then its consequences) and the log's end."""
        return f"{process.excerpt(self._console, head=20, tail=10)}\n{process.excerpt(self.log, tail=10)}"

    def _call(self, command: Sequence[str | Path], timeout: float, stdin: str | None = None) -> str:
        return process.call(
            command,
            env=self._environment(),
            account=self._account,
            cwd=self.directory,
            timeout=timeout,
            stdin=stdin,
        )

    def _answers(self) -> bool:
        """Does the broker greet a client? (The listener opens last, when the node is up.)"""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as client:
                client.sendall(PROTOCOL_HEADER)
                return client.recv(1) == b"\x01"  # a method frame: connection.start
        except OSError:
            return False

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            state: dict[str, Any] = json.loads(self._state.read_text())
            return state
        return {}

    def _process(self, name: str) -> Process | None:
        noted = self._read().get(name)
        return Process(**noted) if noted else None


def _epmd() -> Path:
    found = _of_erlang("epmd")
    if found is None:
        raise ServerError("Erlang's epmd is not on this machine; it belongs to the package RabbitMQ depends on.")
    return found


def _erl_call() -> Path | None:
    return _of_erlang("erl_call")


def _of_erlang(program: str) -> Path | None:
    """Find a program of the Erlang distribution: on the PATH, or below the directory ``erl`` lives in."""
    on_path = shutil.which(program, path=SEARCH_PATH)
    if on_path:
        return Path(on_path)
    erl = shutil.which("erl", path=SEARCH_PATH)
    if erl is None:
        return None
    root = Path(erl).resolve().parent.parent  # .../lib/erlang
    return next(iter(sorted(root.glob(f"**/bin/{program}"), reverse=True)), None)


def _checked(name: str) -> str:
    """Return ``name`` if it needs no escaping in URLs and Erlang strings. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name):
        raise ValueError(f"Not a plain name of a virtual host (A-Z, a-z, 0-9, '_', '.', '-'): {name!r}")
    return name
