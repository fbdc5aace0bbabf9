from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

from . import views

urlpatterns = [
    path("", views.echo, name="echo"),
    path("once", views.echo_once, name="echo_once"),
    path("clock", views.clock, name="clock"),
    path("", include("chat.urls")),
    *staticfiles_urlpatterns(),  # with DEBUG, under every server; runserver would do it by itself
]
