"""The groups of the chat. Views, commands, signals and tasks import them from here, and send."""

from dwebsocket import Groups

rooms = Groups("room")  # rooms["lobby"] is the group "room:lobby"
