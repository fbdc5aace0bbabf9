"""Werkzeug's development server (`run_simple`, django-extensions' `runserver_plus`)."""

from __future__ import annotations

from typing import Any

from .base import BufferedServer


class Werkzeug(BufferedServer):
    """Werkzeug gives a request its reader as it is."""

    dead_keys = frozenset({"werkzeug.socket"})

    @staticmethod
    def find_reader(environ: dict[str, Any]) -> Any:
        if not str(environ.get("SERVER_SOFTWARE", "")).startswith("Werkzeug/"):
            return None
        return environ.get("wsgi.input")
