"""The Django app: with "dwebsocket" in INSTALLED_APPS, `manage.py check` checks its settings, and a logout closes."""

from django.apps import AppConfig


class DwebsocketConfig(AppConfig):
    """Registers the system checks, and what follows a logout."""

    name = "dwebsocket"
    verbose_name = "WebSocket"

    def ready(self) -> None:
        """Register the checks and receivers."""
        from . import checks  # noqa: F401
        from .groups import logout

        logout.connect()
