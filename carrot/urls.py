"""The monitor at a path of the project's choice: ``path("carrot/", include("carrot.urls"))``.

``reverse("carrot-monitor")`` is its first page; ``reverse("carrot-monitor:carrot_failedtask_changelist")`` one of its
lists. It works beside the project's admin and without it.
"""

from __future__ import annotations

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.urls import path

if not apps.is_installed("django.contrib.admin"):
    raise ImproperlyConfigured(
        'carrot.urls is the monitor, which is made with Django\'s admin: add "django.contrib.admin" to INSTALLED_APPS. '
        "It needs no URL of its own."
    )

# The admin's classes must not be imported where the admin is not installed.
from carrot.admin.site import site

urlpatterns = [
    path("", site.urls),
    path("", site.admin_view(site.index), name="carrot-monitor"),  # only for reverse(): the line above answers first
]
