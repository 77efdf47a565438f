"""The Django project of the tests: their own processes and the real ones they start.

    CARROT_TEST_DATABASE        sqlite (default) | postgresql
    CARROT_TEST_DATABASE_NAME   a file (sqlite) or a database (postgresql), for processes that work on a scratch one
    CARROT_TEST_POSTGRES        URL of the PostgreSQL server
    CARROT_TEST_SETTINGS        the setting CARROT, as JSON

Nothing here but what the tests need: no LOGGING, for example, because carrot promises to work without.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def sqlite() -> dict[str, Any]:
    """Return a SQLite database set up as carrot's documentation advises."""
    scratch = Path(tempfile.gettempdir())
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CARROT_TEST_DATABASE_NAME") or str(scratch / "carrot-tests-unused.sqlite3"),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
        # A file, because threads share an in-memory database with locks no real site has.
        "TEST": {"NAME": str(scratch / f"carrot-tests-{os.getpid()}.sqlite3")},
    }


def postgresql() -> dict[str, Any]:
    """Return a database of the server CARROT_TEST_POSTGRES names; else tests/conftest.py fills one in."""
    server = urlsplit(os.environ.get("CARROT_TEST_POSTGRES", "postgresql://127.0.0.1"))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": server.hostname,
        "PORT": server.port or "",
        "USER": unquote(server.username or ""),
        "PASSWORD": unquote(server.password or ""),
        "NAME": os.environ.get("CARROT_TEST_DATABASE_NAME") or server.path.strip("/") or "postgres",
        "TEST": {"NAME": f"carrot_tests_{os.getpid()}"},  # so that two test runs can share a server
    }


DATABASES = {
    "default": {"sqlite": sqlite, "postgresql": postgresql}[os.environ.get("CARROT_TEST_DATABASE", "sqlite")]()
}
CARROT = json.loads(os.environ.get("CARROT_TEST_SETTINGS", '{"default_broker": "database://"}'))

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rangefilter",
    "django_json_widget",
    "carrot",
    "tests.app",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
