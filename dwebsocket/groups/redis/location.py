"""LOCATION and OPTIONS of WEBSOCKET_GROUPS: where the server is, and how a connection to it is made."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from . import commands, faults
from .sentinel import Sentinels, named

if TYPE_CHECKING:
    from .wire import Address, Wire

DEFAULT_MAX_CONNECTIONS = 16
_EXAMPLE = "redis://127.0.0.1:6379/0"
_PERCENT = "a password with / : @ ? or # in it is percent-encoded"
_LIST = "['redis://a:6379', 'redis://b:6379']"
_SCHEMES = ("redis", "rediss", "unix")
_CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
#: And those of the servers that the sentinels name.
_SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_SENTINEL_EXAMPLE = "redis+sentinel://one:26379,two:26379,three:26379/0/mymaster"
SENTINEL_PORT = 26379
#: They are asked for so much of TIMEOUT: what is left is for the server that they name.
_SENTINEL_SHARE = 1 / 3
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")
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
        url, sentinels, service = _checked(where, settings["LOCATION"])
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
        of_sentinels = given.pop("sentinel_kwargs", None)
        self._class = given.pop("connection_class", redis.connection.Connection)
        for name in given.keys() & _OURS.keys():
            raise ImproperlyConfigured(f"{where} has the option {name!r}, which this backend sets itself: leave it out")
        _check_files(f"{where}['OPTIONS']", given)
        self._timeout = float(settings["TIMEOUT"])
        for name in ("socket_timeout", "socket_connect_timeout"):
            given[name] = given.get(name) or self._timeout  # None would wait for ever
        self.options = {**given, **_OURS}
        self._is_tls = issubclass(self._class, redis.connection.SSLConnection)
        _check_options(where, self._class, self.options)
        self._sentinels: Sentinels | None = None
        if service:
            seconds = self._timeout * _SENTINEL_SHARE
            self.sentinel_class, self.sentinel_options = _sentinel_options(
                where, of_sentinels or {}, given, self._is_tls, seconds
            )
            self._sentinels = Sentinels(sentinels, service, self._connect_to_sentinel, seconds)
        elif of_sentinels is not None:
            raise ImproperlyConfigured(
                f"{where}['OPTIONS']['sentinel_kwargs'] is for Sentinel, and LOCATION names none: write one like "
                f"{_SENTINEL_EXAMPLE!r}, or leave it out"
            )
        #: The server, or the service, without the database: messages reach all databases of it.
        self.place, self.text = _texts(given, self._is_tls, self._sentinels)

    def __str__(self) -> str:
        """Where the server is, without a password."""
        return self.text

    def connect(self, name: str) -> Wire:
        """A new connection, logged in, whose server has been judged. Broken or Refused.

        `name` is what CLIENT LIST shows of it, where OPTIONS has no `client_name`.
        """
        if self._sentinels is None:
            return self._connect(name, self.options)
        address = self._sentinels.ask().address
        host, port = address
        try:
            wire = self._connect(name, {**self.options, "host": host, "port": port})
        except (faults.Broken, faults.Refused) as error:
            raise type(error)(f"{named(address)}, the primary by the word of the sentinels: {error}") from error
        wire.address = address
        return wire

    def _connect(self, name: str, options: Mapping[str, Any]) -> Wire:
        import hiredis

        wire = _dial(self._class(**options))
        try:
            hello = commands.hello(str(self.options.get("client_name") or name).encode())
            (answer,) = wire.exchange(hello, 1, time.monotonic() + self._timeout)
            if isinstance(answer, hiredis.ReplyError):
                raise faults.explain(str(answer))
            self.judge(answer)
        except BaseException as error:
            wire.close()
            if isinstance(error, (faults.Broken, faults.Refused)) or not isinstance(error, Exception):
                raise
            raise faults.explain_connect(error, self._is_tls) from error
        return wire

    def _connect_to_sentinel(self, address: Address) -> Wire:
        host, port = address
        return _dial(self.sentinel_class(host=host, port=port, **self.sentinel_options))

    def judge(self, hello: Sequence[object]) -> None:
        """Refuse a server that does not do, by its answer to HELLO. Moved where the sentinels will name another one."""
        try:
            faults.judge_hello(hello)
        except faults.Replica as error:
            if self._sentinels is None:
                raise
            raise faults.Moved(
                "it is a replica: the sentinels name another one soon, or it becomes the primary"
            ) from error

    def look(self) -> None:
        """Ask the sentinels where the primary is now; what they say counts for `leads()`. They may be out of reach."""
        if self._sentinels is not None:
            with contextlib.suppress(faults.Broken, faults.Refused):
                self._sentinels.ask()

    def leads(self, wire: Wire) -> bool:
        """Whether `wire` leads to the present primary, as far as the sentinels have said."""
        return wire.address == self._primary

    def must_lead(self, wire: Wire) -> None:
        """Moved where `wire` does not lead to the present primary."""
        now, then = self._primary, wire.address
        if now != then and now and then:
            raise faults.Moved(f"the sentinels name {named(now)} as the primary, no more {named(then)}")

    @property
    def _primary(self) -> Address | None:
        """The last answer of the sentinels; None where there are none."""
        said = self._sentinels.primary if self._sentinels is not None else None
        return said.address if said is not None else None


def _dial(connection: Any) -> Wire:
    """A wire over a connection of redis-py that connects now, and logs in. Broken or Refused."""
    import redis

    from .wire import Wire

    try:
        connection.connect()
    except (OSError, redis.RedisError, ValueError) as error:
        raise faults.explain_connect(error, isinstance(connection, redis.SSLConnection)) from error
    # From here on the socket is ours: redis-py would shut it down.
    sock, connection._sock = connection._sock, None
    return Wire(sock)


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


def _checked(where: str, url: str) -> tuple[str, list[Address], str]:
    """A URL that redis-py reads; the sentinels, and the service that they watch, where it is one of Sentinel."""
    if not url:
        raise ImproperlyConfigured(f"{where} has no LOCATION: write a URL like {_EXAMPLE!r}")
    scheme, separator, rest = url.partition("://")
    if scheme in _CLUSTER_SCHEMES:
        raise ImproperlyConfigured(
            f"{where}['LOCATION']: Redis Cluster is not supported. Write a list of several servers without "
            f"cluster-enabled, {_LIST}: they share the groups"
        )
    if not separator or scheme not in (*_SCHEMES, *_SENTINEL_SCHEMES):
        shown = scheme if separator else url.rpartition("@")[2].partition(":")[0]  # no password
        raise ImproperlyConfigured(
            f"{where}['LOCATION'] begins with {shown!r}; it must begin with redis://, rediss:// (TLS), unix://, "
            "redis+sentinel:// or rediss+sentinel://"
        )
    if scheme in _SENTINEL_SCHEMES:
        return _checked_sentinel(where, _SENTINEL_SCHEMES[scheme], rest)
    if scheme != "unix" and re.search("[,;]", rest.partition("?")[0].rpartition("@")[2]):
        raise ImproperlyConfigured(f"{where}['LOCATION'] names several servers in one text: write a list, {_LIST}")
    path = rest.partition("?")[0].partition("/")[2]
    if scheme == "unix" and not path:
        raise ImproperlyConfigured(f"{where}['LOCATION'] has no path: write unix:///run/redis/redis.sock")
    if scheme != "unix" and path and not path.isdecimal():
        raise ImproperlyConfigured(
            f"{where}['LOCATION'] has a path that is no number of a database: write one like {_EXAMPLE!r}; {_PERCENT}"
        )
    return url, [], ""


def _checked_sentinel(where: str, scheme: str, rest: str) -> tuple[str, list[Address], str]:
    """The same of [user:password@]host:port,host:port/database/service?options."""
    before, question, query = rest.partition("?")
    together, _, path = before.partition("/")
    secret, at, hosts = together.rpartition("@")
    database, _, service = path.partition("/")
    if not database.isdecimal() or not _SERVICE.fullmatch(service):
        raise ImproperlyConfigured(
            f"{where}['LOCATION'] does not end with a database and the name of a service: write one like "
            f"{_SENTINEL_EXAMPLE!r}; {_PERCENT}"
        )
    addresses = [_sentinel_address(where, host) for host in hosts.split(",")]
    if len(set(addresses)) < len(addresses):
        raise ImproperlyConfigured(f"{where}['LOCATION'] names a sentinel twice: write each one once")
    return f"{scheme}://{secret}{at}sentinel/{database}{question}{query}", addresses, service


def _sentinel_address(where: str, text: str) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.path or parts.fragment:
        raise ImproperlyConfigured(
            f"{where}['LOCATION'] names a sentinel without a host, or with a port that is no number: write one like "
            f"{_SENTINEL_EXAMPLE!r}; {_PERCENT}"
        )
    return host, port or SENTINEL_PORT


def _sentinel_options(
    where: str, own: Any, given: Mapping[str, Any], is_tls: bool, seconds: float
) -> tuple[Any, dict[str, Any]]:
    """The class of redis-py's connections to sentinels, and its keywords: `own`, and what OPTIONS says about TLS."""
    import redis.connection

    if not isinstance(own, Mapping):
        kind = type(own).__name__  # not its value, which may be a password
        raise ImproperlyConfigured(f"{where}['OPTIONS']['sentinel_kwargs'] is of type {kind}; it must be a dict")
    for name in own.keys() & _OURS.keys():
        raise ImproperlyConfigured(
            f"{where}['OPTIONS']['sentinel_kwargs'] has {name!r}, which this backend sets itself: leave it out"
        )
    _check_files(f"{where}['OPTIONS']['sentinel_kwargs']", own)
    options = dict(own)
    of_redis_py: Any = redis.connection.Connection
    if options.pop("ssl", is_tls):
        of_redis_py = redis.connection.SSLConnection
        options = {**{name: value for name, value in given.items() if name.startswith("ssl_")}, **options}
    options.update(_OURS, socket_timeout=seconds, socket_connect_timeout=seconds)
    _check_options(f"{where}['OPTIONS']['sentinel_kwargs']", of_redis_py, options)
    return of_redis_py, options


def _check_files(where: str, options: Mapping[str, Any]) -> None:
    for name in _FILES:
        if options.get(name) and not Path(options[name]).is_file():
            raise ImproperlyConfigured(f"{where}[{name!r}] is {options[name]!r}: there is no such file")


def _check_options(where: str, kind: Any, options: Mapping[str, Any]) -> None:
    import redis

    try:
        kind(**options)  # which connects to nothing
    except (TypeError, ValueError, redis.RedisError) as error:
        raise ImproperlyConfigured(f"{where} does not fit redis.{kind.__name__}: {error}") from error


def _count(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ImproperlyConfigured(f"{where}['OPTIONS']['max_connections'] is {value!r}; it must be 1 or more")
    return value


def _texts(given: Mapping[str, Any], is_tls: bool, sentinels: Sentinels | None) -> tuple[str, str]:
    """Names of the server, without its database and with it."""
    if "path" in given:
        return (f"unix://{given['path']}",) * 2
    scheme, database = "rediss" if is_tls else "redis", given.get("db", 0)
    if sentinels is None:
        place = f"{scheme}://{given.get('host', 'localhost')}:{given.get('port', 6379)}"
        return place, f"{place}/{database}"
    hosts = f"{scheme}+sentinel://{','.join(map(named, sentinels.addresses))}"
    return f"{hosts}/{sentinels.service}", f"{hosts}/{database}/{sentinels.service}"
