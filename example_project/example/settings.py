"""An ordinary settings file; the two lines that matter name dwebsocket."""

import os

DEBUG = True
SECRET_KEY = "only for the example, which keeps no secret"

# From a phone in the same network: ALLOWED_HOSTS=192.168.1.20 python example_project/manage.py runserver 0.0.0.0:8000
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *os.environ.get("ALLOWED_HOSTS", "").split()]

INSTALLED_APPS = [
    "dwebsocket",
    "example",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "dwebsocket.middleware.WebSocketMiddleware",
]

ROOT_URLCONF = "example.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"  # the example has no database
TIME_ZONE, USE_TZ = None, False  # the clock shows the time of this machine

# runserver shows its requests only. This adds a line for each WebSocket that opens (apps.py) and that has closed.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "[%(asctime)s] %(message)s", "datefmt": "%d/%b/%Y %H:%M:%S"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "dwebsocket": {"handlers": ["console"], "level": "INFO"},
        "example": {"handlers": ["console"], "level": "INFO"},
    },
}
