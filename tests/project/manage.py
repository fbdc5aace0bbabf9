"""``python -m tests.project.manage``: manage.py, which Ctrl-C stops even where a shell switched that off."""

import os
import signal
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")
    execute_from_command_line(sys.argv)
