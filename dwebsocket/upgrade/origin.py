"""The pages that may open a WebSocket (RFC 6455, 10.2)."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest
from django.utils.http import is_same_domain

from .. import conf
from ..exceptions import OriginForbidden

_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_origin(request: HttpRequest, options: conf.Options) -> None:
    """OriginForbidden where the page that opens the WebSocket belongs to another site (RFC 6455, 10.2).

    A browser always says the origin; a client that says none is no browser, and is let in unless `require_origin`.
    """
    host = request.get_host()  # enforces ALLOWED_HOSTS
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None and not options.require_origin:
        return
    if origin is None:
        raise OriginForbidden(f"no Origin for host {host!r}, and WEBSOCKET_REQUIRE_ORIGIN is set")
    trusted = (*options.allowed_origins, *settings.CSRF_TRUSTED_ORIGINS)
    own = f"{_scheme(request)}://{host}"
    # A host that begins with a dot stands for itself, and not for every subdomain.
    if origin == own or (not host.startswith(".") and _origin_matches(origin, own)):
        return
    if "*" not in options.allowed_origins and not any(_origin_matches(origin, allowed) for allowed in trusted):
        advice = (
            "add it to WEBSOCKET_ALLOWED_ORIGINS or CSRF_TRUSTED_ORIGINS,"
            " or let the proxy pass the host on (nginx: proxy_set_header Host $http_host)"
        )
        if not request.is_secure() and _origin_matches(origin, f"https://{host}"):
            advice = (
                f"it differs by its scheme alone, and this request looks like http; {_advice_about_tls(request)}; where"
                f' what ends TLS can send no header, write WEBSOCKET_ALLOWED_ORIGINS = ["https://{host}"]'
            )
        raise OriginForbidden(f"origin {origin!r} is not allowed for host {host!r}: {advice}")


def _scheme(request: HttpRequest) -> str:
    """The scheme of the page: a proxy that ends TLS may send wss where https is due, as Traefik does."""
    scheme = str(request.scheme)  # first: it judges the setting
    name, secure = settings.SECURE_PROXY_SSL_HEADER or ("", "")
    said = request.META.get(name, "").partition(",")[0].strip()
    return "https" if (secure, said) == ("https", "wss") else scheme


def _advice_about_tls(request: HttpRequest) -> str:
    if not settings.SECURE_PROXY_SSL_HEADER:
        return "behind a proxy that ends TLS, set SECURE_PROXY_SSL_HEADER, and let the proxy send that header"
    name, secure = settings.SECURE_PROXY_SSL_HEADER
    header, said = name.removeprefix("HTTP_").replace("_", "-").title(), request.META.get(name)
    sent = f"no {header}" if said is None else f"{header}: {said!r}"
    return f"the proxy sent {sent}, and SECURE_PROXY_SSL_HEADER expects {secure!r}: let it send that"


def _origin_matches(origin: str, allowed: str) -> bool:
    try:
        theirs, ours = urlsplit(origin.lower()), urlsplit(allowed.lower())
        theirs_port = theirs.port or _DEFAULT_PORTS.get(theirs.scheme)
        ours_port = ours.port or _DEFAULT_PORTS.get(ours.scheme)
    except ValueError:  # no URL at all
        return False
    if theirs.path or theirs.query or theirs.fragment or "@" in theirs.netloc:  # RFC 6454, 7: an origin has none
        return False
    if not theirs.hostname or not ours.hostname or theirs.scheme != ours.scheme or theirs_port != ours_port:
        return False
    pattern = ours.hostname[1:] if ours.hostname.startswith("*.") else ours.hostname
    return is_same_domain(theirs.hostname, pattern)
