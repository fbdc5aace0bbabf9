"""LOCATION and OPTIONS of WEBSOCKET_GROUPS: where the server is, and how a connection to it is made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from . import commands, faults

if TYPE_CHECKING:
    from .wire import Wire

DEFAULT_MAX_CONNECTIONS = 16
_EXAMPLE = "redis://127.0.0.1:6379/0"
_PERCENT = "a password with / : @ ? or # in it is percent-encoded"
_SCHEMES = ("redis", "rediss", "unix")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: What this backend decides itself.
_OURS = {
    "protocol": 2,
    "retry": None,
    "retry_on_timeout": False,
    "retry_on_error": (),
    "health_check_interval": 0,
    "decode_responses": False,
}


class Location:
    """One server, and how a connection to it is made; LOCATION is its URL.

    ImproperlyConfigured where the settings are wrong.
    """

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        where = f"WEBSOCKET_GROUPS[{alias!r}]"
        try:
            import hiredis  # noqa: F401
            import redis.connection
        except ImportError as error:
            raise ImproperlyConfigured(
                f"{where} needs redis-py and hiredis ({error}): pip install 'redis[hiredis]'"
            ) from error
        url = _checked(where, settings["LOCATION"])
        try:
            parse_url: Any = redis.connection.parse_url
            given = dict(parse_url(url))
        except ValueError as error:
            # Other errors may quote a part of the password.
            why = f" ({error})" if "Invalid value for" in str(error) else ""
            raise ImproperlyConfigured(
                f"{where}['LOCATION'] is no URL{why}: write one like {_EXAMPLE!r}; {_PERCENT}"
            ) from None
        given.update(settings["OPTIONS"])
        self.max_connections = _count(where, given.pop("max_connections", DEFAULT_MAX_CONNECTIONS))
        self._class = given.pop("connection_class", redis.connection.Connection)
        for name in given.keys() & _OURS.keys():
            raise ImproperlyConfigured(f"{where} has the option {name!r}, which this backend sets itself: leave it out")
        for name in _FILES:
            if given.get(name) and not Path(given[name]).is_file():
                raise ImproperlyConfigured(f"{where}['OPTIONS'][{name!r}] is {given[name]!r}: there is no such file")
        self._timeout = float(settings["TIMEOUT"])
        for name in ("socket_timeout", "socket_connect_timeout"):
            given[name] = given.get(name) or self._timeout  # None would wait for ever
        self.options = {**given, **_OURS}
        self._is_tls = issubclass(self._class, redis.connection.SSLConnection)
        self.place = _place(url, given)
        self.text: str = self.place if url.startswith("unix:") else f"{self.place}/{given.get('db', 0)}"
        try:
            self._class(**self.options)  # which connects to nothing
        except (TypeError, ValueError, redis.RedisError) as error:
            raise ImproperlyConfigured(
                f"{where}['OPTIONS'] does not fit redis.{self._class.__name__}: {error}"
            ) from error

    def __str__(self) -> str:
        """Where the server is, without a password."""
        return self.text

    def connect(self, name: str) -> Wire:
        """A new connection, logged in, whose server has been judged. Broken or Refused.

        `name` is what CLIENT LIST shows of it, where OPTIONS has no `client_name`.
        """
        import hiredis
        import redis

        from .wire import Wire

        connection = self._class(**self.options)
        try:
            connection.connect()
        except (OSError, redis.RedisError, ValueError) as error:
            raise faults.explain_connect(error, self._is_tls) from error
        # From here on the socket is ours: redis-py would shut it down.
        sock, connection._sock = connection._sock, None
        wire = Wire(sock)
        try:
            hello = commands.hello(str(self.options.get("client_name") or name).encode())
            (answer,) = wire.exchange(hello, 1, time.monotonic() + self._timeout)
            if isinstance(answer, hiredis.ReplyError):
                raise faults.explain(str(answer))
            faults.judge_hello(answer)
        except BaseException as error:
            wire.close()
            if isinstance(error, (faults.Broken, faults.Refused)) or not isinstance(error, Exception):
                raise
            raise faults.explain_connect(error, self._is_tls) from error
        return wire


def locations(alias: str, settings: Mapping[str, Any]) -> list[Location]:
    """The servers of LOCATION, in its order."""
    where = f"WEBSOCKET_GROUPS[{alias!r}]['LOCATION']"
    urls = settings["LOCATION"]
    if isinstance(urls, str):
        return [Location(alias, settings)]
    if not urls:
        raise ImproperlyConfigured(f"{where} is an empty list: write a URL like {_EXAMPLE!r}")
    found = [Location(alias, {**settings, "LOCATION": url}) for url in urls]
    seen: dict[str, Location] = {}
    for location in found:
        other = seen.setdefault(location.place, location)
        if other is not location:
            raise ImproperlyConfigured(
                f"{where} has the same server twice ({other}, {location}): each server of the list has its own address"
            )
    return found


def _checked(where: str, url: str) -> str:
    if not url:
        raise ImproperlyConfigured(f"{where} has no LOCATION: write a URL like {_EXAMPLE!r}")
    scheme, separator, rest = url.partition("://")
    if scheme == "redis+sentinel":
        raise ImproperlyConfigured(f"{where}['LOCATION']: Sentinel is not supported yet; write the primary's URL")
    if not separator or scheme not in _SCHEMES:
        shown = scheme if separator else url.rpartition("@")[2].partition(":")[0]  # no password
        raise ImproperlyConfigured(
            f"{where}['LOCATION'] begins with {shown!r}; it must begin with redis://, rediss:// (TLS) or unix://"
        )
    path = rest.partition("?")[0].partition("/")[2]
    if scheme == "unix" and not path:
        raise ImproperlyConfigured(f"{where}['LOCATION'] has no path: write unix:///run/redis/redis.sock")
    if scheme != "unix" and path and not path.isdecimal():
        raise ImproperlyConfigured(
            f"{where}['LOCATION'] has a path that is no number of a database: write one like {_EXAMPLE!r}; {_PERCENT}"
        )
    return url


def _count(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ImproperlyConfigured(f"{where}['OPTIONS']['max_connections'] is {value!r}; it must be 1 or more")
    return value


def _place(url: str, given: Mapping[str, Any]) -> str:
    """The server, without the database: messages reach all databases of it."""
    scheme = url.partition("://")[0]
    if scheme == "unix":
        return f"unix://{given['path']}"
    return f"{scheme}://{given.get('host', 'localhost')}:{given.get('port', 6379)}"
