"""Private RabbitMQ and PostgreSQL servers for the tests, made with the standard library alone.

Each instance has its own free loopback ports, data directory, log and (RabbitMQ) node name, cookie and epmd, and runs
as an unprivileged user. So tests may stop, crash and refill them, and servers that already run on this machine are
neither used nor stopped. Apart from where they listen they run with the defaults of their packages, fsync included.

    install.py     finds the programs, or installs their packages
    process.py     ports, accounts, processes told apart by pid and start time
    rabbitmq.py    class RabbitMQ
    postgresql.py  class PostgreSQL
    places.py      directories: one per checkout for work by hand, one per test session
    __main__.py    start | stop | env | status, behind scripts/servers
"""

from tests.servers.install import ensure_installed
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import ServerError
from tests.servers.rabbitmq import RabbitMQ

__all__ = ["PostgreSQL", "RabbitMQ", "ServerError", "ensure_installed"]
