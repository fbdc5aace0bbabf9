"""The groups of the project that have a history or a presence; the publishers of the tests declare them, too."""

from dwebsocket import Groups

kept = Groups("kept", history=2000, ttl=600, presence=True)
few = Groups("few", history=20, ttl=600)
