"""A project without the stock admin: the monitor on a site of its own."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.urls import path

from carrot import admin, models

site = AdminSite(name="tasks")
for model, model_admin in (
    (models.MessageLog, admin.MessageLogAdmin),
    (models.QueuedTask, admin.QueuedTaskAdmin),
    (models.RunningTask, admin.RunningTaskAdmin),
    (models.FailedTask, admin.FailedTaskAdmin),
    (models.CompletedTask, admin.CompletedTaskAdmin),
    (models.DelayedTask, admin.DelayedTaskAdmin),
    (models.WorkerProcess, admin.WorkerProcessAdmin),
    (models.StrayMessage, admin.StrayMessageAdmin),
):
    site.register(model, model_admin)

urlpatterns = [path("tasks/", site.urls)]
