"""How the messages of a queue become tasks, and what happens when one fails: the extension point of a project.

Name a subclass in ``CARROT["queues"][…]["consumer_class"]``. Each worker process makes one object for the queue. It
owns no thread and no connection: its hooks are called where the work is done.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from django.db import connections, transaction
from django.utils.module_loading import import_string

from carrot import database
from carrot.atomic import MAX_BROKEN
from carrot.conf import QueueSettings
from carrot.models import MessageLog
from carrot.models.claim import Outcome
from carrot.serializers import BaseMessageSerializer, DefaultMessageSerializer
from carrot.virtual_host import VirtualHost

logger = logging.getLogger(__name__)

FailureCallback: TypeAlias = Callable[[MessageLog, BaseException], None]

#: Seconds between tries to write a failure while the database is away, about: two that broke each other off shall not
#: meet again.
RETRY = 0.5


class Consumer:
    """The consumer of one queue; its constructor is that of 1.x, which subclasses call with positional arguments."""

    #: Reads the messages that other programs publish.
    serializer: BaseMessageSerializer = DefaultMessageSerializer()

    def __init__(
        self,
        host: VirtualHost,
        queue: str,
        logger: logging.Logger,
        name: str,
        durable: bool = True,
        queue_arguments: Mapping[str, Any] | None = None,
        exchange_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.host = host
        self.queue = queue
        self.logger = logger
        self.name = name
        self.durable = durable
        self.queue_arguments = dict(queue_arguments or {})
        self.exchange_arguments = dict(exchange_arguments or {})
        self.failure_callbacks: list[FailureCallback] = []

    def get_task_type(self, properties: Any, body: bytes) -> str:
        """The dotted path of the task that a message asks for. Raises ``MessageFormatError``."""
        return self.serializer.get_task(properties, body)

    def get_message_log(self, properties: Any, body: bytes) -> MessageLog | None:
        """Override it to make a row, saved or not, of a message that another program published; None: not a task.

        Called in the transaction that claims the row: both are committed, or neither, and only then is the message
        acknowledged. A message delivered again (same broker, queue and message id) is not asked for again. Carrot's own
        messages have their row and never come here. The row's task has to be registered. An exception: the message is
        kept among the stray ones, with the reason.
        """
        return None

    def add_failure_callback(self, cb: FailureCallback) -> None:
        """Has ``cb(log, exception)`` called when a task of this queue has finally failed; see :meth:`fail`."""
        self.failure_callbacks.append(cb)

    def fail(self, log: MessageLog, err: BaseException) -> None:
        """Calls the failure callbacks. On the thread, with the database connection, that ran the task, and in the
        transaction that makes ``log`` FAILED: what callbacks write is committed with it, what they publish follows.

        An exception here undoes what the callbacks wrote; the task is FAILED all the same, its log says why.
        """
        for callback in self.failure_callbacks:
            callback(log, err)

    # -- what carrot asks -----------------------------------------------------------------------------------------

    @property
    def adopts(self) -> bool:
        """Whether messages of other programs may become tasks here."""
        return type(self).get_message_log is not Consumer.get_message_log

    @property
    def hears_failures(self) -> bool:
        """Whether anybody wants to know of a failure."""
        return bool(self.failure_callbacks) or type(self).fail is not Consumer.fail


def make_consumer(queue: QueueSettings) -> Consumer:
    """The consumer object of ``queue`` in this process."""
    consumer: Consumer = import_string(queue.consumer_class)(
        queue.host,
        queue.name,
        logging.getLogger("carrot"),
        f"{queue.name} consumer",
        queue.durable,
        dict(queue.queue_arguments),
        dict(queue.exchange_arguments),
    )
    return consumer


def record_failure(consumer: Consumer, outcome: Outcome, error: BaseException) -> Outcome | None:
    """Writes a failure and lets ``consumer`` hear of it, in one transaction, on the calling thread.

    Returns None when all is written (or the claim was no longer ours, and nobody hears of it), else the outcome that is
    still to be recorded because the consumer raised. Waits for a database that is away; where it broke the transaction
    off, the consumer hears of the failure again, :data:`~carrot.atomic.MAX_BROKEN` times at most.
    """
    alias = database.alias()
    heard = 0
    while True:
        session: object = None
        try:
            with transaction.atomic(using=alias):
                session = connections[alias].connection
                # Where a COMMIT went well and its answer was lost, nothing is left to complete: what the consumer did
                # with it stands.
                if MessageLog.objects.using(alias).complete(outcome):
                    heard += 1
                    consumer.fail(MessageLog.objects.using(alias).get(pk=outcome.claim.id), error)
            return None
        except BaseException as failure:  # SystemExit too: the executor's thread must live on
            if heard < MAX_BROKEN and database.broke_off(failure, alias, session):
                logger.warning("A failure waits for the database: %s", str(failure).strip())
                database.drop_broken()
                time.sleep(RETRY * random.uniform(0.5, 1.5))  # noqa: S311
                continue
            logger.exception("A failure callback of queue %s raised.", consumer.queue)
            text = f"{outcome.log}\nA failure callback raised {type(failure).__name__}: {failure}"
            return outcome._replace(log=text.strip())
