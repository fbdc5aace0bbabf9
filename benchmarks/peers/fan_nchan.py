"""``fan_nchan.py FD``: nginx with nchan, which keeps members itself; messages are published by HTTP, to nginx."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

CONFIGURATION = """
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 30000;
events {{ worker_connections 25000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 128m;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/rooms/(\\d+)/$ {{
            nchan_subscriber websocket;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/publish/(\\d+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            nchan_store_messages off;
        }}
    }}
}}
"""


def main(nginx: str, module: str, fd: int) -> None:
    with socket.socket(fileno=fd) as listener:
        port = listener.getsockname()[1]
        listener.setblocking(False)
        listener.detach()
    folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
    (folder / "nginx.conf").write_text(CONFIGURATION.format(module=module, folder=folder, port=port))
    # nginx takes over a socket that it finds in the variable NGINX, as from its predecessor in an upgrade.
    arguments = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    os.execve(nginx, arguments, {**os.environ, "NGINX": f"{fd};"})  # noqa: S606


main(*sys.argv[1:3], int(sys.argv[3]))
