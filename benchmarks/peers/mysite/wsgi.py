"""The project on WSGI; it refuses to start with another build of dwebsocket than BENCHMARKS_BUILD."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from dwebsocket.protocol import COMPILED

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"

if COMPILED is (os.environ["BENCHMARKS_BUILD"] == "pure"):
    raise SystemExit(f"{os.environ['BENCHMARKS_BUILD']} was asked for, and dwebsocket.protocol.COMPILED is {COMPILED}")

application = get_wsgi_application()
