"""Builds the distribution django-carrot; the settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """Return the version from carrot/__init__.py, read as text: importing it would need what is not installed yet."""
    found = re.search(r'^__version__ = "([^"]+)"$', (HERE / "carrot" / "__init__.py").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit('carrot/__init__.py has no line of the form __version__ = "1.2.3"')
    return found.group(1)


EXTRAS = {
    "postgres": ["psycopg[binary]>=3.2"],
    "tasks": ["django-tasks>=0.9"],  # the backport of django.tasks: needed with Django 5.2 only
    "metrics": ["prometheus-client>=0.20"],
    "test": [
        "coverage>=7.6",
        "django-stubs>=5.2",
        "hypothesis>=6.100",
        "import-linter>=2.5",
        "mypy>=1.15",
        "playwright>=1.45",
        "pytest>=8.3",
        "pytest-django>=4.11",
        "pytest-timeout>=2.3",
        "ruff>=0.11",
        "setuptools>=77",
        "types-Pygments",
    ],
}

setup(
    name="django-carrot",
    version=version(),
    description="A task queue for Django over RabbitMQ in which every task is a row, seen and managed in the admin",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["carrot", "carrot.*"]),
    package_data={"carrot": ["py.typed", "templates/**/*", "static/**/*", "locale/**/*"]},
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=[
        "Django>=5.2",
        "pika>=1.4",
        "django-admin-rangefilter>=0.13",
        "django-json-widget>=2.0",
        "python-daemon>=3.1; platform_system != 'Windows'",
        "cronsim>=2.5",
        "Pygments>=2.17",
    ],
    extras_require=EXTRAS,
    keywords=["django", "task queue", "rabbitmq", "amqp", "background tasks", "scheduler"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Web Environment",
        "Framework :: Django",
        "Framework :: Django :: 5.2",
        "Framework :: Django :: 6.0",
        "Intended Audience :: Developers",
        "Operating System :: MacOS",
        "Operating System :: POSIX",
        "Programming Language :: Python",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
