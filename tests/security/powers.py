"""The table of who may do what in the monitor: every address and every action, and the permissions each takes.

A need is written as alternatives separated by ``|``, each of permissions that are needed together, joined by ``+``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

#: Every member of staff.
STAFF = ""
#: Not even a superuser.
NOBODY = "nobody"

SEE_TASKS = "view_messagelog|change_messagelog"
SEE_WORKERS = "view_workerprocess|change_workerprocess"
SEE_STRAYS = "view_straymessage|change_straymessage"
SEE_SCHEDULES = "view_scheduledtask|change_scheduledtask"
ADD_SCHEDULES, CHANGE_SCHEDULES, DELETE_SCHEDULES, RUN_SCHEDULES = (
    f"{verb}_scheduledtask" for verb in ("add", "change", "delete", "run")
)
ANY_MODEL = "|".join([SEE_TASKS, SEE_WORKERS, SEE_STRAYS, SEE_SCHEDULES, ADD_SCHEDULES, DELETE_SCHEDULES])


def _also(see: str, permission: str) -> str:
    return "|".join(f"{alternative}+{permission}" for alternative in see.split("|"))


REQUEUE, RUN_AGAIN, WITHDRAW, PURGE, DELETE = (
    _also(SEE_TASKS, f"{verb}_messagelog") for verb in ("requeue", "run_again", "withdraw", "purge", "delete")
)


def _read_only(name: str, see: str, **others: str) -> dict[str, tuple[str, str]]:
    """The addresses of a list whose rows nobody changes there."""
    needs = {"": see, "add/": NOBODY, "*/": STAFF, "*/change/": see, "*/history/": see, "*/delete/": NOBODY}
    return {f"carrot/{name}/{rest}": (need, NOBODY) for rest, need in {**needs, **others}.items()}


#: In the lists of one status these lead to the page of the task, which has its own needs.
OF_A_TASK = dict.fromkeys(("*/change/", "*/history/", "*/delete/"), STAFF)

#: Address: what it takes to be shown something there, and what to change something by a POST.
ADDRESSES: dict[str, tuple[str, str]] = {
    "": (STAFF, NOBODY),
    "login/": (STAFF, NOBODY),
    "logout/": (NOBODY, NOBODY),  # a POST ends the session, and changes nothing of ours
    "password_change/": (STAFF, NOBODY),
    "password_change/done/": (STAFF, NOBODY),
    "autocomplete/": (NOBODY, NOBODY),
    "jsi18n/": (STAFF, NOBODY),
    "r/<path:content_type_id>/*/": (NOBODY, NOBODY),
    "(?P<app_label>carrot)/$": (ANY_MODEL, NOBODY),
    "(?P<app_label>auth|carrot)/$": (ANY_MODEL, NOBODY),
    "(?P<url>.*)$": (NOBODY, NOBODY),
    **_read_only("messagelog", SEE_TASKS),
    "carrot/messagelog/*/delete/": (DELETE, DELETE),
    "carrot/messagelog/*/requeue/": (NOBODY, REQUEUE),
    "carrot/messagelog/*/run-again/": (NOBODY, RUN_AGAIN),
    "carrot/messagelog/*/withdraw/": (NOBODY, WITHDRAW),
    "carrot/queuedtask/purge/": (PURGE, PURGE),
    "carrot/queuedtask/requeue-pending/": (REQUEUE, REQUEUE),
    **_read_only("queuedtask", SEE_TASKS, **OF_A_TASK),
    **_read_only("runningtask", SEE_TASKS, **OF_A_TASK),
    **_read_only("failedtask", SEE_TASKS, **OF_A_TASK),
    **_read_only("completedtask", SEE_TASKS, **OF_A_TASK),
    **_read_only("delayedtask", SEE_TASKS, **OF_A_TASK),
    **_read_only("workerprocess", SEE_WORKERS),
    **_read_only("straymessage", SEE_STRAYS),
    "carrot/scheduledtask/": (SEE_SCHEDULES, NOBODY),
    "carrot/scheduledtask/add/": (ADD_SCHEDULES, ADD_SCHEDULES),
    "carrot/scheduledtask/*/": (STAFF, NOBODY),
    "carrot/scheduledtask/*/change/": (SEE_SCHEDULES, CHANGE_SCHEDULES),
    "carrot/scheduledtask/*/history/": (SEE_SCHEDULES, NOBODY),
    "carrot/scheduledtask/*/delete/": (DELETE_SCHEDULES, DELETE_SCHEDULES),
    "carrot/scheduledtask/*/run/": (NOBODY, RUN_SCHEDULES),
}

#: List and action: what it takes. What is not here, a list does not offer.
ACTIONS: dict[tuple[str, str], str] = {
    ("messagelog", "requeue"): REQUEUE,
    ("messagelog", "run_again"): RUN_AGAIN,
    ("messagelog", "withdraw"): WITHDRAW,
    ("messagelog", "delete_selected"): DELETE,
    ("queuedtask", "withdraw"): WITHDRAW,
    ("failedtask", "requeue"): REQUEUE,
    ("failedtask", "delete_selected"): DELETE,
    ("completedtask", "run_again"): RUN_AGAIN,
    ("completedtask", "delete_selected"): DELETE,
    ("delayedtask", "withdraw"): WITHDRAW,
    ("scheduledtask", "run_now"): _also(SEE_SCHEDULES, RUN_SCHEDULES),
    ("scheduledtask", "enable"): CHANGE_SCHEDULES,
    ("scheduledtask", "disable"): CHANGE_SCHEDULES,
    ("scheduledtask", "delete_selected"): _also(SEE_SCHEDULES, DELETE_SCHEDULES),
}

#: Every permission that is worth something.
PERMISSIONS = sorted(
    {
        permission
        for need in (*(need for needs in ADDRESSES.values() for need in needs), *ACTIONS.values())
        for permission in need.replace("|", "+").split("+")
    }
    - {STAFF, NOBODY}
)


def may(permissions: Collection[str], need: str) -> bool:
    """Whether somebody with these permissions has what it takes."""
    return need != NOBODY and any(set(each.split("+")) - {""} <= set(permissions) for each in need.split("|"))


def about(permission: str) -> Callable[[str], bool]:
    """Whether this permission has a say in a need."""
    return lambda need: permission in need.replace("|", "+").split("+")


def permitted(need: str) -> bool:
    """Whether a need is a matter of permissions at all."""
    return need not in (STAFF, NOBODY)
