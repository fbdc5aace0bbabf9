from django.urls import path

from . import views

urlpatterns = [
    path("", views.echo, name="echo"),
    path("once", views.echo_once, name="echo_once"),
    path("clock", views.clock, name="clock"),
]
