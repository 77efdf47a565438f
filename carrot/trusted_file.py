"""Opening the files whose paths an operator gives: never one that somebody else may have put there."""

from __future__ import annotations

import os
import pwd
import stat

from carrot.exceptions import ServiceError

OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_trusted(path: str, flags: int, *, option: str, what: str) -> int | None:
    """Opens a file that only this user or root can have put there; None if there is none (and ``flags`` make none).

    A symbolic link is never followed, and a file of another user never written: in a directory where others write, such
    as /tmp, they could make us overwrite what they choose. Raises ``ServiceError``, which names ``option``.
    """
    try:
        fd = os.open(path, flags | OPEN, 0o600)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not flags & os.O_CREAT:
            return None
        why = "it is a symbolic link, and none is followed" if os.path.islink(path) else error.strerror
        if isinstance(error, PermissionError) and os.path.exists(path):
            why = f"{error.strerror}; it belongs to the user {_user(os.stat(path).st_uid)}"
        verb = "written" if flags & (os.O_WRONLY | os.O_RDWR) else "read"
        raise ServiceError(f"The {what} {path} cannot be {verb} ({why}): give another {option}.") from error
    found = os.fstat(fd)
    why = ""
    if not stat.S_ISREG(found.st_mode) and not (what == "log file" and stat.S_ISCHR(found.st_mode)):
        why = "is not a regular file"
    elif found.st_uid not in (os.geteuid(), 0):
        why = f"belongs to the user {_user(found.st_uid)}; run this command as that user"
    elif stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        why = "has several names (hard links)"
    if why:
        os.close(fd)
        raise ServiceError(f"The {what} {path} {why}, or give another {option}.")
    return fd


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
