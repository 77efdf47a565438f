"""Every error that carrot raises, in one tree.

::

    CarrotError
    ├── CarrotConfigException                       the settings are wrong
    ├── PublishError                                a task cannot be published as asked; nothing was written
    │   ├── InvalidTask                             what was given is not a task
    │   │   ├── TaskImportError(ImportError)        its module does not import
    │   │   └── TaskAttributeError(AttributeError)  its module has no such module-level function
    │   ├── InvalidArguments(TypeError)             the arguments do not fit the function, are not JSON or are too large
    │   └── UnknownQueue(CarrotConfigException)     no queue of this name; the text lists the valid names
    ├── MessageFormatError                          a message in the broker is not one that carrot can read
    ├── BrokerError                                 talking to the broker failed
    │   ├── BrokerUnreachable                       nobody answers at its address
    │   └── BrokerRefused                           it answers, and says no: credentials, rights
    └── ServiceError                                the service cannot start or go on

Every text says what was found, where, what is allowed and what to do, and none holds a password.
"""

from __future__ import annotations


class CarrotError(Exception):
    """The base of all errors of carrot: catch this to catch them all."""


class CarrotConfigException(CarrotError):
    """The settings are wrong; the text names each wrong key, what it may hold and what to do."""


class PublishError(CarrotError):
    """A task cannot be published as asked. No row was written and no message was sent."""


class InvalidTask(PublishError):
    """What was given is not a function that a worker could import."""


class TaskImportError(InvalidTask, ImportError):
    """The module of a task does not import, or does not exist."""


class TaskAttributeError(InvalidTask, AttributeError):
    """The module of a task has no function of that name, or what has the name is no module-level function."""


class InvalidArguments(PublishError, TypeError):
    """The arguments do not fit the signature of the task, are not JSON, or are too large."""


class UnknownQueue(PublishError, CarrotConfigException):
    """The settings have no queue of this name; the text lists those they have."""


class MessageFormatError(CarrotError):
    """A message in the broker cannot be read: its headers or its body are not what the serializer expects."""


class BrokerError(CarrotError):
    """Talking to the broker failed. Committed tasks are safe: their rows are rung again."""


class BrokerUnreachable(BrokerError):
    """Nobody answers at the broker's address."""


class BrokerRefused(BrokerError):
    """The broker answers and says no: wrong user or password, unknown virtual host, missing rights."""


class ServiceError(CarrotError):
    """The service cannot start or go on; the text is one sentence with the cure."""
