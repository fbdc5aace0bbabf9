"""One WebSocket, one page, and rooms where there is a Redis."""

from __future__ import annotations

import os

from django.urls import path

from . import views

urlpatterns = [
    path("", views.page),
    path("echo/", views.echo),
    path("parked/", views.Echo.as_view()),
    path("stays/", views.stays),
]

if "BENCHMARKS_REDIS" in os.environ:
    from . import rooms

    urlpatterns += rooms.urlpatterns
