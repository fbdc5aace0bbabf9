from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.redis.faults import Broken, Refused
from dwebsocket.groups.redis.location import Location, locations
from tests.groups.servers import Certificates, RedisServer
from tests.links import ROOT

NewServer = Callable[..., RedisServer]


def location(url: Any, options: Any = None, **settings: Any) -> Location:
    return Location("default", {**DEFAULTS, "LOCATION": url, "OPTIONS": options or {}, **settings})


@pytest.mark.parametrize(
    ("url", "options", "advice"),
    [
        ("", {}, "has no LOCATION: write a URL like 'redis://127.0.0.1:6379/0'"),
        ("http://127.0.0.1", {}, "begins with 'http'; it must begin with redis://, rediss:// (TLS), unix://"),
        ("127.0.0.1:6379", {}, "begins with '127.0.0.1'"),
        ("redis+cluster://h", {}, "Redis Cluster is not supported. Write a list of several servers"),
        ("rediss+cluster://h", {}, "Redis Cluster is not supported. Write a list of several servers"),
        ("redis+sentinel://h", {}, "does not end with a database and the name of a service"),
        ("redis+sentinel://h/0", {}, "does not end with a database and the name of a service"),
        ("redis+sentinel://h/name", {}, "does not end with a database and the name of a service"),
        ("redis+sentinel://h/0/na me", {}, "does not end with a database and the name of a service"),
        ("redis+sentinel://h/0/name/more", {}, "'redis+sentinel://one:26379,two:26379,three:26379/0/mymaster'"),
        ("redis+sentinel://h:port/0/name", {}, "a port that is no number"),
        ("redis+sentinel://h,/0/name", {}, "names a sentinel without a host"),
        ("redis+sentinel:///0/name", {}, "names a sentinel without a host"),
        ("redis+sentinel://h,h:26379/0/name", {}, "names a sentinel twice"),
        ("redis+sentinel://h/0/name", {"sentinel_kwargs": "secret"}, "is of type str; it must be a dict"),
        ("redis+sentinel://h/0/name", {"sentinel_kwargs": {"protocol": 3}}, "has 'protocol', which this backend sets"),
        ("redis+sentinel://h/0/name", {"sentinel_kwargs": {"color": 1}}, "['sentinel_kwargs'] does not fit redis.Conn"),
        ("redis+sentinel://h/0/name", {"sentinel_kwargs": {"ssl_ca_certs": "/no.pem"}}, "there is no such file"),
        ("redis://h", {"sentinel_kwargs": {}}, "is for Sentinel, and LOCATION names none"),
        ("redis://h:port", {}, "is no URL"),
        ("redis://h/name", {}, "has a path that is no number of a database"),
        ("redis://a:6379,b:6379", {}, "names several servers in one text: write a list, ['redis://a:6379', "),
        ("redis://a;redis://b", {}, "names several servers in one text: write a list"),
        ("redis://:a/b,c@h", {}, "has a path that is no number of a database"),
        ("unix://", {}, "has no path"),
        ("redis://h", {"max_connections": 0}, "['max_connections'] is 0; it must be 1 or more"),
        ("redis://h?max_connections=x", {}, "is no URL (Invalid value for 'max_connections'"),
        ("redis://h", {"protocol": 3}, "has the option 'protocol', which this backend sets itself"),
        ("redis://h", {"colour": "red"}, "does not fit redis.Connection: "),
        ("redis://h", {"ssl_ca_certs": "/nowhere.pem"}, "is '/nowhere.pem': there is no such file"),
        ("rediss://h", {"ssl_cert_reqs": "perhaps"}, "does not fit redis.SSLConnection: "),
    ],
)
def test_settings_that_are_wrong_are_refused_at_once(url: Any, options: Any, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        location(url, options)
    assert "WEBSOCKET_GROUPS['default']" in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret/word@h",
        "redis://user:secret#word@h",
        "redis://:secret?word@h/x",
        "redis+sentinel://:secret/word@h/0/name",
        "redis+sentinel://user:secret#word@h/0/name",
        "redis+sentinel://:secret?word@h/0/name",
    ],
)
def test_password_that_is_not_encoded_is_not_shown(url: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        location(url)
    assert "percent-encoded" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://user:secret@h:7000/3", "redis://h:7000/3"),
        ("rediss://:secret@h", "rediss://h:6379/0"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
        ("redis+sentinel://a/0/shop", "redis+sentinel://a:26379/0/shop"),
        ("redis+sentinel://user:secret@a:1,[::1]:2,c/3/my.shop", "redis+sentinel://a:1,[::1]:2,c:26379/3/my.shop"),
        ("rediss+sentinel://:secret@a/0/shop", "rediss+sentinel://a:26379/0/shop"),
    ],
)
def test_location_is_shown_without_its_password(url: str, expected: str) -> None:
    assert str(location(url)) == expected


def test_max_connections_comes_from_options_or_from_the_url() -> None:
    assert location("redis://h").max_connections == 16
    assert location("redis://h?max_connections=3").max_connections == 3
    assert location("redis://h?max_connections=3", {"max_connections": 4}).max_connections == 4


@pytest.mark.parametrize(("given", "expected"), [({}, 2), ({"socket_timeout": None}, 2), ({"socket_timeout": 5}, 5)])
def test_connection_never_waits_for_ever(given: dict[str, Any], expected: float) -> None:
    assert location("redis://h", given).options["socket_timeout"] == expected


def test_password_of_a_sentinel_url_is_that_of_the_servers() -> None:
    options = location("redis+sentinel://user:sec%2Fret@a,b/3/shop?client_name=shop").options

    assert (options["username"], options["password"], options["db"]) == ("user", "sec/ret", 3)
    assert options["client_name"] == "shop"


@pytest.mark.parametrize(
    ("url", "own", "expected"),
    [
        ("redis+sentinel://a/0/shop", {}, redis.Connection),
        ("rediss+sentinel://a/0/shop", {}, redis.SSLConnection),
        ("rediss+sentinel://a/0/shop", {"ssl": False}, redis.Connection),
        ("redis+sentinel://a/0/shop", {"ssl": True, "ssl_check_hostname": False}, redis.SSLConnection),
    ],
)
def test_sentinels_speak_tls_as_the_servers_do_if_nothing_else_is_said(url: str, own: Any, expected: Any) -> None:
    made = location(url, {"sentinel_kwargs": {"password": "other", **own}})

    assert made.sentinel_class is expected
    assert made.sentinel_options["password"] == "other"


def test_sentinels_trust_the_authority_that_the_servers_are_trusted_for(certificates: Certificates) -> None:
    made = location("rediss+sentinel://a/0/shop", {**certificates.options, "password": "secret"})

    assert made.sentinel_options["ssl_ca_certs"] == str(certificates.ca)
    assert "password" not in made.sentinel_options


def places(*urls: Any) -> list[str]:
    return [str(found) for found in locations("default", {**DEFAULTS, "LOCATION": list(urls)})]


def test_list_of_servers_keeps_its_order() -> None:
    assert places("redis://b", "rediss://a:7000/3", "unix:///r.sock", "redis+sentinel://s/0/one") == [
        "redis://b:6379/0",
        "rediss://a:7000/3",
        "unix:///r.sock",
        "redis+sentinel://s:26379/0/one",
    ]
    assert places("redis://b") == ["redis://b:6379/0"]
    assert len(places("redis+sentinel://s/0/one", "redis+sentinel://s/0/two")) == 2


@pytest.mark.parametrize(
    ("urls", "advice"),
    [
        ([], "['LOCATION'] is an empty list"),
        (["redis://a", "redis://:secret@a:6379/1"], "has the same server twice (redis://a:6379/0, redis://a:6379/1)"),
        (["redis://a", ""], "has no LOCATION"),
        (["redis+sentinel://s/0/one", "redis+sentinel://s/1/one"], "has the same server twice"),
        (["unix:///r.sock", "unix:///r.sock?db=1"], "has the same server twice"),
    ],
)
def test_list_that_is_wrong_is_refused(urls: list[str], advice: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        places(*urls)
    assert advice in str(caught.value)
    assert "secret" not in str(caught.value)


WITHOUT_REDIS = """
import sys
sys.modules["redis"] = sys.modules["hiredis"] = None
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.redis import RedisGroups
try:
    RedisGroups("default", {**DEFAULTS, "LOCATION": "redis://h"})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_package_is_imported_without_redis_and_says_what_to_install() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_REDIS], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ran.stdout.startswith("ImproperlyConfigured WEBSOCKET_GROUPS['default'] needs redis-py and hiredis")
    assert "pip install 'redis[hiredis]'" in ran.stdout


def test_connection_is_named_and_its_server_is_judged(server: RedisServer) -> None:
    wire = location(server.url).connect("dwebsocket-test")
    with server.client() as client:
        names = [found["name"] for found in client.client_list()]
    wire.close()

    assert "dwebsocket-test" in names


def test_name_of_the_project_is_kept(server: RedisServer) -> None:
    wire = location(server.url, {"client_name": "shop"}).connect("dwebsocket-test")
    with server.client() as client:
        names = [found["name"] for found in client.client_list()]
    wire.close()

    assert "shop" in names
    assert "dwebsocket-test" not in names


def refusal(url: str, options: Any = None, **settings: Any) -> str:
    """What is said of a server that refuses."""
    with pytest.raises(Refused) as caught:
        location(url, options, **settings).connect("dwebsocket-test")
    return str(caught.value)


def test_password_is_wanted_wrong_right_and_too_much(new_server: NewServer, server: RedisServer) -> None:
    locked = new_server(password="secret")

    assert "it wants a password" in refusal(f"redis://127.0.0.1:{locked.port}")
    assert "does not accept the user or the password" in refusal(f"redis://:wrong@127.0.0.1:{locked.port}")
    location(locked.url).connect("x").close()
    assert "leave the one of LOCATION out" in refusal(f"redis://:secret@127.0.0.1:{server.port}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_with_a_certificate_of_the_client(new_server: NewServer, certificates: Certificates) -> None:
    tls = new_server(certificates=certificates)

    location(tls.url, tls.options).connect("x").close()
    assert "'ssl_ca_certs'" in refusal(tls.url)
    with pytest.raises((Broken, Refused)):
        location(tls.url, {"ssl_ca_certs": tls.options["ssl_ca_certs"]}).connect("x")


def test_plain_connection_to_a_port_of_tls(new_server: NewServer, certificates: Certificates) -> None:
    tls = new_server(certificates=certificates)

    with pytest.raises((Broken, Refused), match="rediss://"):
        location(f"redis://127.0.0.1:{tls.port}").connect("x")


def test_tls_to_a_plain_port(server: RedisServer) -> None:
    with pytest.raises((Broken, Refused), match="redis://"):
        location(f"rediss://127.0.0.1:{server.port}", TIMEOUT=0.5).connect("x")


def test_unix_socket_is_there_or_not(new_server: NewServer, tmp_path: Path) -> None:
    local = new_server(is_unix=True)

    location(f"unix://{local.unix_path}").connect("x").close()
    with pytest.raises(Broken, match="is the server running, with this unixsocket"):
        location(f"unix://{tmp_path / 'none.sock'}").connect("x")


def test_port_without_a_server(new_server: NewServer) -> None:
    gone = new_server()
    gone.stop()

    with pytest.raises(Broken, match="is it running, and is the port right"):
        location(gone.url).connect("x")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"cluster-enabled": "yes"}, "cluster mode"),
        ({"replicaof": "127.0.0.1 1"}, "it is a replica: write the address of the primary"),
    ],
)
def test_server_of_the_wrong_kind_is_refused(new_server: NewServer, settings: dict[str, str], advice: str) -> None:
    assert advice in refusal(new_server(settings=settings).url)


def test_database_that_is_not_there_is_refused(server: RedisServer) -> None:
    assert "no such database" in refusal(f"redis://127.0.0.1:{server.port}/99")


def test_server_that_takes_no_more_clients(new_server: NewServer) -> None:
    full = new_server()
    with full.client() as client:
        client.config_set("maxclients", 1)
        assert "raise maxclients" in refusal(full.url)
        client.config_set("maxclients", 100)
