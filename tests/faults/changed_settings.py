"""Settings of a project that CARROT is not: of its databases, for example."""

from __future__ import annotations

from tests.project import Project

NAME = "changed_settings"


def change_settings(site: Project, code: str) -> None:
    """Processes started from now on run ``code`` at the end of their settings; ``SERVICE`` is whether they are one."""
    before = site.env["DJANGO_SETTINGS_MODULE"]
    name = f"{NAME}_{len(list(site.directory.glob(f'{NAME}_*.py')))}"
    (site.directory / f"{name}.py").write_text(
        f"import sys\nfrom {before} import *\nSERVICE = sys.argv[1:2] == ['carrot']\n{code}\n"
    )
    site.env["DJANGO_SETTINGS_MODULE"] = name


def lead_services_through(site: Project, port: int, **options: int) -> None:
    """Services find their database at ``port``, with these ``options`` of its driver; all others where it is."""
    change_settings(
        site,
        f"if SERVICE:\n    DATABASES['default']['PORT'] = {port}\n"
        f"    DATABASES['default'].setdefault('OPTIONS', {{}}).update({options!r})",
    )
