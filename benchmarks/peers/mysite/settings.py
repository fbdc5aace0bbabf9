"""What ``django-admin startproject`` writes, without what a request never meets."""

from __future__ import annotations

import os
import secrets

SECRET_KEY = secrets.token_hex()
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "mysite.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
WEBSOCKET_MAX_CONNECTIONS = 20_000

if "BENCHMARKS_REDIS" in os.environ:
    REDIS = os.environ["BENCHMARKS_REDIS"]
    # More time than by default: what is measured is how long it takes, not whether a busy machine is in time.
    WEBSOCKET_GROUPS = {
        "default": {
            "BACKEND": "dwebsocket.groups.redis.RedisGroups",
            "LOCATION": REDIS,
            "TIMEOUT": 60,
            "JOIN_TIMEOUT": 60,
        }
    }
    # redis-py's own bounds are too small for the layers: 100 connections for 100 that join at once, and five seconds
    # for an answer that the core layer awaits for five seconds.
    HOSTS = {"hosts": [{"address": REDIS, "max_connections": 1000, "socket_timeout": None}]}
    CHANNEL_LAYERS = {
        "core": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": HOSTS},
        "pubsub": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": HOSTS},
    }
