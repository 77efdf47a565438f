"""Who may do what to tasks. Each permission opens one thing, to those who may see tasks at all."""

from __future__ import annotations

from django.db.models import Model
from django.http import HttpRequest

from carrot.admin.read_only import ReadOnlyAdmin


class TaskPermissions(ReadOnlyAdmin):
    """What the actions and buttons ask. The permissions are those of ``MessageLog``, whatever the list."""

    def has_requeue_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "requeue")

    def has_run_again_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "run_again")

    def has_withdraw_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "withdraw")

    def has_purge_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "purge")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Where a list does not offer it, nobody has it: the action of the site would show up there instead."""
        return "delete_selected" in self.actions and self.may(request, "delete")

    def may(self, request: HttpRequest, action: str) -> bool:
        """Whether somebody may see tasks, and do this to them."""
        return self.has_view_permission(request) and self._may(request, action)
