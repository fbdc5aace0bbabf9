"""``keep.py GROUPS MISSED MESSAGE``: publishes twice MISSED messages to each of so many groups with a history, and says
the position in the middle of each: MISSED come after it.
"""

from __future__ import annotations

import json
import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()

from mysite.rooms import KEPT  # noqa: E402


def main(groups: str, missed: str, message: str) -> None:
    positions = [[KEPT[group].send(message) for _ in range(2 * int(missed))] for group in range(int(groups))]
    print(json.dumps([of_group[int(missed) - 1] for of_group in positions]))


main(*sys.argv[1:])
