"""``manage.py carrot_send``: publishes one task from the command line."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseFailure

from carrot import publisher
from carrot.exceptions import CarrotError
from carrot.services import create_message

#: Seconds to wait for the broker's confirm before the command ends; the service sends what was not confirmed.
CONFIRM = 3.0


def value(text: str) -> Any:
    """An argument of the task: JSON, and what is not JSON is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class Command(BaseCommand):
    help = "Publishes a task. Its arguments are JSON; what is not JSON is a string."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("job_name", help="dotted path of the task")
        parser.add_argument("job_args", nargs="*", metavar="args", type=value, help="its positional arguments")
        parser.add_argument("--queue", help="the queue (default: the task's own, or default)")
        parser.add_argument("--priority", type=int, default=0, help="0 to 255, highest first (default: 0)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            message = create_message(
                options["job_name"], options["queue"], options["priority"], task_args=options["job_args"]
            )
            row = message.publish()
        except CarrotError as error:
            raise CommandError(str(error)) from error
        except DatabaseFailure as error:
            raise CommandError(
                f"The database does not take the task: {str(error).strip()} Is it migrated (manage.py migrate)?"
            ) from error
        confirmed = publisher.flush(CONFIRM)
        self.stdout.write(f"Published {message.call_text()} to queue {row.queue} as {row.uuid}.")
        if not confirmed:
            self.stdout.write("The broker has not confirmed it yet; the service will see to it.")
