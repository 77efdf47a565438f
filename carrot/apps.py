"""The Django application carrot."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CarrotConfig(AppConfig):
    """Registers the system checks, and does nothing else: no thread, no connection, no task module is loaded here."""

    name = "carrot"
    verbose_name = _("Carrot monitor")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Not at the top: the checks import the models, which Django has loaded only now.
        from carrot.checks import register_checks

        register_checks()
