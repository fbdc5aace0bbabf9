"""Werkzeug's development server (`run_simple`, django-extensions' `runserver_plus`)."""

from __future__ import annotations

from typing import Any

from .base import BufferedServer


class Werkzeug(BufferedServer):
    """Werkzeug puts the socket into the environ; its input is the reader."""

    @staticmethod
    def find_reader(environ: dict[str, Any]) -> Any:
        return environ.get("wsgi.input") if "werkzeug.socket" in environ else None
