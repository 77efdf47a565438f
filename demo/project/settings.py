"""A small site with django-carrot. What carrot needs is marked; the rest is what `startproject` writes."""

import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

if "DEMO_SITE" not in os.environ:
    raise ImproperlyConfigured(
        "The demo keeps its database in DEMO_SITE: start scripts/demo, or SITE/manage as it prints."
    )

#: The directory of this site: database, logs, reports.
SITE = Path(os.environ["DEMO_SITE"])

SECRET_KEY = (SITE / "secret-key").read_text("ascii")
# For the site only: with DEBUG, Django remembers every query, which a service that runs for days should not.
DEBUG = "runserver" in sys.argv
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
# Browsers do not tell the ports of a host apart: other sites on this machine keep their own logins.
SESSION_COOKIE_NAME = "carrot_demo_session"
CSRF_COOKIE_NAME = "carrot_demo_csrf"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rangefilter",  # carrot's filters
    "django_json_widget",  # carrot's editor of arguments
    "carrot",
    "library",
]

# Carrot: one line says which broker. The names of the queues are this site's own, as RabbitMQ may serve others too.
FILES = f"demo-{SITE.name}.files"
REPORTS = f"demo-{SITE.name}.reports"
CARROT = {
    "default_broker": os.environ.get("DEMO_BROKER", "database://"),
    "queues": [
        {"name": FILES, "concurrency": 2},
        {"name": REPORTS},
    ],
    "task_modules": ["library.tasks"],
}
SILENCED_SYSTEM_CHECKS = ["carrot.W002"]  # there is no queue "default": every task of this site names its own

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": SITE / "db.sqlite3",
        # Carrot: the site and the service write at the same time, and wait for each other instead of failing.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "timeout": 20,
        },
    }
}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
ROOT_URLCONF = "project.urls"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
