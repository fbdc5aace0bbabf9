"""An ordinary settings file; the two lines that matter name dwebsocket."""

import os
from pathlib import Path

DEBUG = True
SECRET_KEY = "only for the example, which keeps no secret"

# From a phone in the same network: ALLOWED_HOSTS=192.168.1.20 python example_project/manage.py runserver 0.0.0.0:8000
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *os.environ.get("ALLOWED_HOSTS", "").split()]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "dwebsocket",
    "chat",
    "example",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "dwebsocket.middleware.WebSocketMiddleware",
]

ROOT_URLCONF = "example.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
STATIC_URL = "static/"
TIME_ZONE, USE_TZ = None, False  # the clock shows the time of this machine

# The database is for users who log in (manage.py migrate). Guests of the chat have a session, and that is a file.
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parents[1] / "db.sqlite3"},
}
SESSION_ENGINE = "django.contrib.sessions.backends.file"

# What is sent to a group reaches the WebSockets of this process. With Redis it reaches those of all processes:
# REDIS_URL=redis://127.0.0.1:6379/0 gunicorn --chdir example_project --workers 2 --worker-class gevent example.wsgi
if "REDIS_URL" in os.environ:
    WEBSOCKET_GROUPS = {
        "default": {"BACKEND": "dwebsocket.groups.redis.RedisGroups", "LOCATION": os.environ["REDIS_URL"]},
    }
WEBSOCKET_CLOSE_ON_LOGOUT = True  # in every tab

# runserver shows its requests only. This adds a line for each WebSocket that opens (apps.py) and that has closed.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "[%(asctime)s] [%(process)d] %(message)s", "datefmt": "%d/%b/%Y %H:%M:%S"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "dwebsocket": {"handlers": ["console"], "level": "INFO"},
        "example": {"handlers": ["console"], "level": "INFO"},
    },
}
