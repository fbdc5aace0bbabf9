"""The project behind a WSGI middleware that replaces wsgi.input, as some do that count or limit what is read."""

from tests.project.wsgi import application as project


class Input:
    """Reads, and hides what it reads from."""

    def __init__(self, stream):
        self.read = stream.read
        self.readline = stream.readline


def application(environ, start_response):
    environ["wsgi.input"] = Input(environ["wsgi.input"])
    return project(environ, start_response)
