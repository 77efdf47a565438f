"""Opening the files whose paths an operator gives: never one that somebody else may have put there."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from carrot.exceptions import ServiceError

OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_trusted(path: str, flags: int, *, option: str, what: str, rights: int = 0o600) -> int | None:
    """Opens a file that only this user or root can have put there; None if there is none (and ``flags`` make none).

    A symbolic link is never followed, and a file of another user never written: in a directory where others write, such
    as /tmp, they could make us overwrite what they choose. ``rights`` are those of a file that is made. Raises
    ``ServiceError``, which names ``option``.
    """
    if link := _planted_link(path):
        raise ServiceError(
            f"The {what} {path} is behind the symbolic link {link} of the user {_user(link.lstat().st_uid)}, in a "
            f"directory where everybody writes: give another {option}."
        )
    try:
        fd = os.open(path, flags | OPEN, rights)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not flags & os.O_CREAT:
            return None
        why = error.strerror
        if os.path.islink(path):
            why = "it is a symbolic link, and none is followed"
        elif isinstance(error, PermissionError) and os.path.exists(path):
            why = f"{error.strerror}; it belongs to the user {_user(os.stat(path).st_uid)}"
        verb = "written" if flags & (os.O_WRONLY | os.O_RDWR) else "read"
        raise ServiceError(f"The {what} {path} cannot be {verb} ({why}): give another {option}.") from error
    found = os.fstat(fd)
    why = ""
    if not stat.S_ISREG(found.st_mode) and not (what == "log file" and stat.S_ISCHR(found.st_mode)):
        why = "is not a regular file: remove it"
    elif found.st_uid not in (os.geteuid(), 0):
        why = f"belongs to the user {_user(found.st_uid)}: run this command as that user"
    elif stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        why = "has several names (hard links): remove it"
    if why:
        os.close(fd)
        raise ServiceError(f"The {what} {path} {why}, or give another {option}.")
    return fd


def _planted_link(path: str) -> Path | None:
    """The symbolic link among the directories of ``path`` that a stranger may have put there; None if there is none.

    The rule is that of Linux (``fs.protected_symlinks`` in proc(5)), which is not in force everywhere: in a directory
    where everybody writes, only links of one's own and of the directory's owner are followed.
    """
    for directory in Path(path).parents:
        if os.path.islink(directory):
            around = directory.parent.stat()
            if around.st_mode & stat.S_IWOTH and directory.lstat().st_uid not in (os.geteuid(), around.st_uid):
                return directory
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
