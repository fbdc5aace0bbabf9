"""gunicorn for attached views, which it would wait for until it kills them."""

from tests.project.gunicorn_conf import *  # noqa: F403


def post_worker_init(worker):
    from dwebsocket import shutdown_on_signal

    shutdown_on_signal()
