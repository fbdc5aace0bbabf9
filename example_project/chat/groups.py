"""The groups of the chat. Views, commands, signals and tasks import them from here, and send."""

from dwebsocket import Groups

KEPT = 200  # messages of a room, until nothing was said in it for a day
rooms = Groups("room", history=KEPT, ttl=24 * 3600, presence=True)  # rooms["lobby"] is the group "room:lobby"
typing = Groups("typing")  # who writes in the room of the same name: told to those that are there now, and not kept
