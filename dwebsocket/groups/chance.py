"""Random numbers for delays, so that a fleet spreads."""

from __future__ import annotations

import random

#: It has no state: a thread of ours changes no numbers that a seed of the project has chosen.
chance = random.SystemRandom()
