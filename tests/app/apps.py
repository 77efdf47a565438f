"""The app ``tests.app``."""

from django.apps import AppConfig


class TestsAppConfig(AppConfig):
    """Found by Django through INSTALLED_APPS."""

    name = "tests.app"
    label = "app"
    default_auto_field = "django.db.models.BigAutoField"
