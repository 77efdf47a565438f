"""Databases that have little space, and can be left without any."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults.changed_settings import change_settings
from tests.project import Project
from tests.servers import PostgreSQL

MEGABYTE = 1 << 20


class Disk(Protocol):
    """What a project's database has for itself."""

    def take(self, site: Project) -> None:
        """Give the project's database this space and no more; before anything of the project runs."""

    def fill(self, site: Project) -> None:
        """Leave it nothing."""

    def free(self, site: Project) -> None:
        """Give it back what ``fill`` took."""


class SmallDisk:
    """A file system of ``size`` megabytes, which has a tablespace of PostgreSQL."""

    def __init__(self, server: PostgreSQL, size: int) -> None:
        self._server = server
        self._size = size
        self._name = f"small_{uuid.uuid4().hex[:12]}"
        self._directory = server.directory / self._name
        self._ballast = self._directory / "ballast"

    @contextmanager
    def mounted(self) -> Iterator[SmallDisk]:
        """Skips the test where it cannot be mounted."""
        owner = self._server.data.stat()
        self._directory.mkdir()
        options = f"size={self._size}m,mode=0755,uid={owner.st_uid},gid={owner.st_gid}"
        command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", options, self._name, self._directory]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            problem = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            problem = str(error)
        if problem:
            self._directory.rmdir()
            pytest.skip(f"A small file system cannot be mounted here, which takes root: {problem}")
        try:
            place = self._directory / "tablespace"
            place.mkdir(0o700)
            os.chown(place, owner.st_uid, owner.st_gid)
            self._server.psql(f"CREATE TABLESPACE {self._name} LOCATION '{place}'")
            yield self
            self._server.psql(f"DROP TABLESPACE {self._name}")
        finally:
            subprocess.run(["umount", "--lazy", self._directory], check=True)
            self._directory.rmdir()

    def take(self, site: Project) -> None:
        self._server.psql(f"ALTER DATABASE {site.database_name} SET TABLESPACE {self._name}")

    def fill(self, site: Project) -> None:
        with open(self._ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(MEGABYTE))
            except OSError:
                return  # no space left: that is what was wanted

    def free(self, site: Project) -> None:
        self._ballast.unlink()


class SmallFile:
    """A file of SQLite that may have ``size`` megabytes: what is not used for ballast is used again."""

    def __init__(self, size: int) -> None:
        self._size = size

    def take(self, site: Project) -> None:
        (page,) = site.sql("PRAGMA page_size")
        limit = self._size * MEGABYTE // page["page_size"]
        # A connection's own limit, which is never less than what the file has when it connects.
        change_settings(site, f"DATABASES['default']['OPTIONS']['init_command'] += 'PRAGMA max_page_count={limit};'")
        site.sql("CREATE TABLE ballast (piece BLOB)")

    def fill(self, site: Project) -> None:
        (page,) = site.sql("PRAGMA page_size")
        while (missing := self._size * MEGABYTE - self._pages(site) * page["page_size"]) >= 0:
            site.sql(f"INSERT INTO ballast VALUES (zeroblob({min(MEGABYTE, missing + page['page_size'])}))")

    def free(self, site: Project) -> None:
        site.sql("DELETE FROM ballast")

    @staticmethod
    def _pages(site: Project) -> int:
        (count,) = site.sql("PRAGMA page_count")
        return int(count["page_count"])
