"""The app ``tests.app``."""

import os

from django.apps import AppConfig

from tests.app import clock, schedulers, sql_errors, threads


class TestsAppConfig(AppConfig):
    """Found by Django through INSTALLED_APPS."""

    name = "tests.app"
    label = "app"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if path := os.environ.get(clock.VARIABLE):
            clock.shift(path)
        if path := os.environ.get(schedulers.VARIABLE):
            schedulers.make_mortal(path)
        if path := os.environ.get(sql_errors.VARIABLE):
            sql_errors.begin(path)
        if path := os.environ.get(threads.VARIABLE):
            threads.make_mortal(path)
