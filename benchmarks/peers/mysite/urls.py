"""One WebSocket, one page, and rooms where there is a Redis."""

from __future__ import annotations

import os

from django.urls import path

from . import views

urlpatterns = [path("", views.page), path("echo/", views.echo)]

if "BENCHMARKS_REDIS" in os.environ:
    from . import rooms

    urlpatterns += rooms.urlpatterns
