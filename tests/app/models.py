"""What sample tasks leave behind, so that tests can count how often each ran."""

from django.db import models


class Effect(models.Model):
    """One run of a task that got as far as writing this row."""

    message_id = models.CharField(max_length=64)
    attempt = models.PositiveIntegerField()
    pid = models.PositiveIntegerField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.message_id}, attempt {self.attempt}, in process {self.pid}"
