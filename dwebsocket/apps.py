"""The Django app: add "dwebsocket" to INSTALLED_APPS to have its settings checked by `manage.py check`."""

from django.apps import AppConfig


class DwebsocketConfig(AppConfig):
    """Registers the system checks."""

    name = "dwebsocket"
    verbose_name = "WebSocket"

    def ready(self) -> None:
        """Register the checks."""
        from . import checks  # noqa: F401
