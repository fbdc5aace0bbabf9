from django.contrib.auth.views import LogoutView
from django.urls import path, re_path

from . import views

app_name = "chat"
urlpatterns = [
    path("chat/", views.index, name="index"),
    # Letters of any script, digits, "-" and "_", as slugify() makes them: a name of a group may have no others.
    re_path(r"^chat/(?P<name>[-\w]{1,40})/$", views.room, name="room"),
    path("name/", views.NameView.as_view(), name="name"),
    path("log-out/", LogoutView.as_view(next_page="chat:name"), name="log_out"),
]
