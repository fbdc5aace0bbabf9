"""For gunicorn --preload: the process that forks the workers has itself published before."""

from dwebsocket import group
from tests.project.wsgi import application

__all__ = ["application"]

group("master").send("hello")
