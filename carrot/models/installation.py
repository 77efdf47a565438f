"""The identity of this database on a shared broker."""

from __future__ import annotations

import uuid
from uuid import UUID

from django.db import models

from carrot.models.managers import PrimaryManager


class InstallationManager(PrimaryManager["Installation"]):
    def site(self) -> UUID:
        """The id that marks this database's messages, made at the first call and kept for ever.

        A consumer that meets a message with another id leaves it to its owner: two projects may share a broker by
        accident. Safe against two processes asking at once: the fixed primary key lets one of them win.
        """
        found = self.values_list("site_id", flat=True).first()
        if found is None:
            found = self.get_or_create(pk=1, defaults={"site_id": uuid.uuid4()})[0].site_id
        return found


class Installation(models.Model):
    """One row: who we are to other installations on the same broker."""

    site_id = models.UUIDField(editable=False)

    objects = InstallationManager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.site_id)
