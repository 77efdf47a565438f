"""A project without the stock admin: the monitor on its own, below a path."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("tasks/", include("carrot.urls"))]
