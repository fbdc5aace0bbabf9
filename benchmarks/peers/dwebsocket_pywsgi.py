"""``dwebsocket_pywsgi.py FD``: the Django project on gevent's pywsgi."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from gevent import socket  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from mysite.wsgi import application  # noqa: E402

listener = socket.socket(fileno=int(sys.argv[1]))
WSGIServer(listener, application, log=None).serve_forever()
