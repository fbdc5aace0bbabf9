import logging

from django.apps import AppConfig
from django.dispatch import receiver

from dwebsocket import websocket_opened

logger = logging.getLogger(__name__)


class ExampleConfig(AppConfig):
    name = "example"


@receiver(websocket_opened)
def log_opened(sender, request, **kwargs):
    logger.info("%s opened", request.path)
