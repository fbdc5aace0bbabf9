"""The URL of a WebSocket (RFC 6455, 3)."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urlsplit

_DEFAULT_PORTS = {"ws": 80, "wss": 443}
_PATH_SAFE = "/%:@!$&'()*+,;=~?"  # these stay as they are in a URL; an escaped character stays escaped


class Target(NamedTuple):
    """The parts of a WebSocket's URL (RFC 6455, 3): `authority` goes into Host, `resource` into the request line."""

    secure: bool
    host: str
    port: int
    authority: str
    resource: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read `url`; ValueError where it is not one of ws:// or wss://."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is not the URL of a WebSocket: ws://host/path or wss://host/path")
        host, default_port = parts.hostname, _DEFAULT_PORTS[parts.scheme]
        port = parts.port or default_port
        authority = f"[{host}]" if ":" in host else host
        if port != default_port:
            authority += f":{port}"
        resource = quote(parts.path, safe=_PATH_SAFE) or "/"
        if parts.query:
            resource += "?" + quote(parts.query, safe=_PATH_SAFE)
        return cls(parts.scheme == "wss", host, port, authority, resource)

    @property
    def origin(self) -> str:
        """The origin of the pages of that site."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"
