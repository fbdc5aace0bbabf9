"""One WebSocket, one page."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [path("", views.page), path("echo/", views.echo)]
