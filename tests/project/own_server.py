"""WEBSOCKET_SERVER of a project: one that claims to have read a message already."""

from dwebsocket.servers import Server
from tests.peer import text


class OwnServer(Server):
    lets_go = False

    @staticmethod
    def find_socket(environ):
        return environ.get("gunicorn.socket")

    def buffered(self):
        return text("from a server of my own")
