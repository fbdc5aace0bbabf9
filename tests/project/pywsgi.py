"""``python -m tests.project.pywsgi``: gevent's WSGI server, on a port of the kernel's choice."""

from gevent import monkey

monkey.patch_all()

import signal  # noqa: E402

import gevent  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

from tests.project.wsgi import application  # noqa: E402

if __name__ == "__main__":
    server = WSGIServer(("127.0.0.1", 0), application)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.start()
    print(f"Listening at: http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
