"""The admin, and the way to it."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/carrot/")),
    path("admin/", admin.site.urls),
]
