"""Any Django project, served by a process of its own on a port of the kernel's choice."""

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager

from tests.real.servers import PATIENCE_SECONDS, ROOT, assert_quiet

ADDRESS = re.compile(r"http://127\.0\.0\.1:([1-9]\d*)")


def end(process, signal_number, log):
    """End a process as an operator would. It is a failure, with its log, where that takes a SIGKILL."""
    process.send_signal(signal_number)
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"{process.args[0]} did not stop:\n{log()}") from None


class Served:
    """A running server: where it listens, and what it has logged."""

    def __init__(self, command, cwd, log_file, environment=()):
        # The settings are the project's own, not those that the tests themselves run with.
        inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        environment = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **dict(environment)}
        self._log_file = log_file
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def wait_until_up(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (address := ADDRESS.search(self.log())):
            assert self._process.poll() is None, f"the server has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the server does not listen:\n{self.log()}"
            time.sleep(0.02)
        self.host, self.port = "127.0.0.1", int(address.group(1))

    def http(self, path):
        return f"http://{self.host}:{self.port}{path}"

    def ws(self, path):
        return f"ws://{self.host}:{self.port}{path}"

    def log(self):
        return self._log_file.read_text(errors="replace")

    def stop(self):
        end(self._process, signal.SIGTERM, self.log)


@contextmanager
def serving(command, cwd, log_file, environment=()):
    """The project in `cwd`, served by `command`; at the end its log must be quiet."""
    served = Served(command, cwd, log_file, environment)
    try:
        served.wait_until_up()
        yield served
    finally:
        served.stop()
    assert_quiet(served.log())
