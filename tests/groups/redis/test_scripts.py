"""Scripts as commands: by their digest, and whole."""

from __future__ import annotations

import hashlib

from dwebsocket.groups.redis.scripts import UNKNOWN, Script
from tests.groups.servers import RedisServer


def test_call_is_an_evalsha_or_an_eval_of_the_same_script() -> None:
    call = Script("return {KEYS[1],ARGV[1]}").call([b"key"], [b"a\r\nb", b""])
    digest = hashlib.sha1(b"return {KEYS[1],ARGV[1]}", usedforsecurity=False).hexdigest().encode()

    rest = b"$1\r\n1\r\n$3\r\nkey\r\n$4\r\na\r\nb\r\n$0\r\n\r\n"
    assert call.short() == b"*6\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n%b" % (digest, rest)
    assert call.whole() == b"*6\r\n$4\r\nEVAL\r\n$24\r\nreturn {KEYS[1],ARGV[1]}\r\n%b" % rest


def test_server_says_that_it_does_not_know_a_script(any_server: RedisServer) -> None:
    script = Script("return 'never seen'")
    with any_server.client() as client:
        try:
            client.execute_command("EVALSHA", script.digest, 0)
        except Exception as error:
            said = str(error)
        assert UNKNOWN in f"NOSCRIPT {said}"
        assert client.execute_command("EVAL", script.text, 0) == b"never seen"
        assert client.execute_command("EVALSHA", script.digest, 0) == b"never seen"
