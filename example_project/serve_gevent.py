"""Serves the example under gevent: python example_project/serve_gevent.py [--host 0.0.0.0] [--port 8000]"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import argparse
import signal

import gevent
from gevent.pywsgi import WSGIServer

from example.wsgi import application


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the example under gevent.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()

    server = WSGIServer((options.host, options.port), application)
    gevent.signal_handler(signal.SIGINT, server.stop)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.start()
    print(f"Serving on http://{options.host}:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
