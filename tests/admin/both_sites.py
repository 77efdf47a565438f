"""A project with the stock admin and the monitor on a site of its own."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("tasks/", include("carrot.urls"))]
