"""Pid and log files where somebody else may have had a hand: refused with the cure, and nothing else is touched.

Each case is tried by root and by a user who is not, in one process each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.project import CHECKOUT, ProjectFactory
from tests.security.opener import COMMAND, KEPT, OPENED, WAYS

USERS = {"root": 0, "user": 65534}
STRANGER = 65533

as_several_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory where everybody writes, as /tmp, and beside it one of the user's and one of a stranger's."""

    user: int
    shared: Path
    own: Path
    foreign: Path

    @property
    def path(self) -> Path:
        """What is given to the service."""
        return self.shared / "carrot.file"

    def link(self, target: Path, owner: int = STRANGER) -> None:
        self.path.symlink_to(target)
        os.chown(self.path, owner, owner, follow_symlinks=False)

    def file(self, mode: int, owner: int) -> None:
        self.path.write_text("1\n")
        self.path.chmod(mode)
        os.chown(self.path, owner, owner)

    def socket(self) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.path))
        self.path.chmod(0o666)

    def node(self, kind: int) -> None:
        os.mknod(self.path, kind, os.makedev(1, 3))
        self.path.chmod(0o666)

    def way(self, owner: int, mode: int = 0o1777) -> None:
        """A link among the directories on the way."""
        self.shared.chmod(mode)
        (self.shared / "way").symlink_to(self.foreign)
        os.chown(self.shared / "way", owner, owner, follow_symlinks=False)


Trap = Callable[[Place], None]

#: What stands at the path, and what the refusal says of it.
TRAPS: dict[str, tuple[Trap, str]] = {
    "a link to one's own file": (lambda place: place.link(place.own / "precious", place.user), "symbolic link"),
    "a stranger's link to one's own file": (lambda place: place.link(place.own / "precious"), "symbolic link"),
    "a link to a stranger's file": (lambda place: place.link(place.foreign / "precious"), "symbolic link"),
    "a dangling link": (lambda place: place.link(place.own / "missing"), "symbolic link"),
    "a dangling link to a stranger": (lambda place: place.link(place.foreign / "missing"), "symbolic link"),
    "a link to a directory": (lambda place: place.link(place.own), "symbolic link"),
    "a link to itself": (lambda place: place.link(place.path), "symbolic link"),
    "a link to a device": (lambda place: place.link(Path("/dev/null")), "symbolic link"),
    "a stranger's file for all": (lambda place: place.file(0o666, STRANGER), "belongs to the user"),
    "a stranger's file": (lambda place: place.file(0o600, STRANGER), "belongs to the user"),
    "a second name of one's own file": (lambda place: place.path.hardlink_to(place.own / "precious"), "hard links"),
    "a second name of a stranger's": (lambda place: place.path.hardlink_to(place.foreign / "precious"), "belongs to"),
    "a directory": (lambda place: place.path.mkdir(), "Is a directory|is not a regular file|Permission denied"),
    "a fifo": (lambda place: place.node(stat.S_IFIFO), "is not a regular file|No such device"),
    "a socket": (lambda place: place.socket(), "No such device"),
}


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came of a case: by way, and the files before and after."""

    path: Path
    said: dict[str, str]
    before: dict[str, Any] = field(repr=False)
    after: dict[str, Any] = field(repr=False)


@pytest.fixture
def base() -> Iterator[Path]:
    """Not pytest's own directory, where nobody but root may look."""
    directory = Path(tempfile.mkdtemp(prefix="carrot files "))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> int:
    return USERS[request.param]


def make_place(base: Path, user: int, number: int) -> Place:
    place = Place(user=user, **{name: base / str(number) / name for name in ("shared", "own", "foreign")})
    (base / str(number)).mkdir()
    for directory, owner in ((place.shared, 0), (place.own, user), (place.foreign, STRANGER)):
        directory.mkdir()
        (directory / "precious").write_text("1\n")
        for path in (directory, directory / "precious"):
            os.chown(path, owner, owner)
    (place.shared / "precious").unlink()
    place.shared.chmod(0o1777)
    return place


def attempt(user: int, cases: dict[str, Path]) -> dict[str, Tried]:
    """Tries every way to open each path, all in one process of that user."""
    around = {path: path.parent.parent for path in cases.values()}
    before = {path: content_of(around[path]) for path in cases.values()}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(user), *map(str, cases.values())],
        cwd=CHECKOUT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return {
        name: Tried(path=path, said=said[str(path)], before=before[path], after=content_of(around[path]))
        for name, path in cases.items()
    }


def content_of(directory: Path) -> dict[str, Any]:
    """All there is below a directory, and when it was changed."""
    found = {}
    for path in sorted(directory.rglob("*")):
        seen = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        changed = seen.st_mtime_ns if not path.is_dir() else 0
        found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_nlink, content, changed)
    return found


@as_several_users
def test_what_a_stranger_may_have_put_there_is_refused_and_nothing_is_touched(base: Path, user: int) -> None:
    places = {name: make_place(base, user, number) for number, name in enumerate(TRAPS)}
    for name, (trap, _why) in TRAPS.items():
        trap(places[name])
    tried = attempt(user, {name: place.path for name, place in places.items()})
    for name, (_trap, why) in TRAPS.items():
        found = tried[name]
        assert found.before == found.after, name
        assert set(found.said) == set(WAYS)
        for way, said in found.said.items():
            if way == "rotate":
                assert said == KEPT, (name, way, said)
            else:
                option = "--logfile" if "log" in way else "--pidfile"
                assert re.search(
                    rf"^The (pid|log) file {re.escape(str(found.path))} .*({why}).* give another {option}\.$", said
                ), (name, way, said)


@as_several_users
def test_plain_files_of_ones_own_are_opened_and_are_nobody_elses_to_write(base: Path, user: int) -> None:
    traps: dict[str, Trap] = {
        "none": lambda place: None,
        "left behind": lambda place: place.file(0o644, user),
        "in a directory of one's own": lambda place: (place.shared.chmod(0o755), os.chown(place.shared, user, user)),
    }  # type: ignore[dict-item]  # what they return is of no interest
    places = {name: make_place(base, user, number) for number, name in enumerate(traps)}
    for name, place in places.items():
        traps[name](place)
    for name, tried in attempt(user, {name: place.path for name, place in places.items()}).items():
        assert tried.said == dict.fromkeys(WAYS, OPENED), name
        assert not tried.path.exists()  # cleared at last
        outside = [path for path in tried.after if not path.startswith(str(tried.path))]
        assert {path: tried.after[path] for path in outside} == {path: tried.before[path] for path in outside}


@as_several_users
def test_a_file_of_root_may_be_looked_at(base: Path) -> None:
    """The daemon of root, and the status that somebody asks for."""
    place = make_place(base, USERS["user"], 0)
    place.file(0o644, 0)
    said = attempt(USERS["user"], {"": place.path})[""].said
    assert said["look"] == OPENED
    assert "it belongs to the user root" in said["hold"]
    assert place.path.read_text() == "1\n"


@as_several_users
def test_devices_are_for_logs_alone(base: Path, user: int) -> None:
    try:
        places = {kind: make_place(base, user, kind) for kind in (stat.S_IFCHR, stat.S_IFBLK)}
        for kind, place in places.items():
            place.node(kind)
    except PermissionError:
        pytest.skip("this machine lets nobody make devices")
    tried = attempt(user, {str(kind): place.path for kind, place in places.items()})
    for kind, way in ((kind, way) for kind in places for way in WAYS):
        said = tried[str(kind)].said[way]
        if kind == stat.S_IFCHR and way in ("log", "daemon_log", "rotate"):
            assert said == OPENED
        else:
            assert said == KEPT or "is not a regular file" in said or "cannot be" in said, (kind, way, said)


@as_several_users
def test_a_directory_where_everybody_may_exchange_the_pid_file_is_refused_with_the_cure(base: Path, user: int) -> None:
    place = make_place(base, user, 0)
    place.shared.chmod(0o777)
    tried = attempt(user, {"": place.path})[""]
    assert f"take the right to write from others (chmod o-w {place.shared})" in tried.said["hold"]
    assert "give another --pidfile." in tried.said["hold"]
    assert {path for path in tried.after if path not in tried.before} <= {str(place.path)}  # the log


@as_several_users
@pytest.mark.parametrize("option", ["--pidfile", "--logfile"])
def test_a_link_that_a_stranger_put_on_the_way_is_not_followed(base: Path, user: int, option: str) -> None:
    places = {name: make_place(base, user, number) for number, name in enumerate(["stranger's", "own", "in order"])}
    places["stranger's"].way(STRANGER)
    places["own"].way(user)
    places["in order"].way(STRANGER, 0o755)  # whom the directory's owner lets in, he trusts
    for place in places.values():
        os.chown(place.foreign, user, user)
    tried = attempt(user, {name: place.shared / "way" / "carrot.file" for name, place in places.items()})
    refused = tried["stranger's"]
    way = "hold" if option == "--pidfile" else "log"
    assert (
        f"is behind the symbolic link {places[chr(115) + 'tranger' + chr(39) + 's'].shared / 'way'}"
        in refused.said[way]
    )
    assert f"give another {option}." in refused.said[way]
    assert refused.before == refused.after
    for name in ("own", "in order"):
        assert tried[name].said[way] == OPENED, name


# -- real processes ---------------------------------------------------------------------------------------------------


@pytest.mark.acceptance
def test_a_service_in_the_foreground_does_not_write_where_a_link_leads(project: ProjectFactory) -> None:
    site = project()
    precious, link = site.directory / "precious", site.directory / "link.log"
    precious.write_text("1\n")
    link.symlink_to(precious)
    done = site.manage("carrot", "--logfile", link, check=False)
    assert done.returncode == 1
    assert f"The log file {link} cannot be written (it is a symbolic link, and none is followed)" in done.stdout
    assert "Traceback" not in done.stdout
    assert precious.read_text() == "1\n"


@pytest.mark.acceptance
def test_a_link_put_in_the_place_of_a_log_file_that_was_moved_away_is_not_followed(project: ProjectFactory) -> None:
    site = project()
    log, moved, precious = (site.directory / name for name in ("carrot.log", "carrot.log.1", "precious"))
    precious.write_text("1\n")
    service = site.service("--logfile", log)
    service.wait_ready()
    log.rename(moved)
    log.symlink_to(precious)
    key = site.publish("tests.app.tasks.add", 1, 2)
    site.wait_until(lambda: "tests.app.tasks.add" in moved.read_text(), message=f"task {key} is in the old log")
    assert precious.read_text() == "1\n"
    log.unlink()
    site.publish("tests.app.tasks.add", 1, 2)
    site.wait_until(lambda: log.exists() and "tests.app.tasks.add" in log.read_text(), message="a new file is made")
    assert service.stop() == 0
