"""Redis, or Valkey, carries the messages of groups between all processes.

backend        RedisGroups: the contract of backends, from the modules below
server         one server: the connections to it, and its time of silence
scripts        Lua scripts, and how they are called
history        the scripts that keep messages, and their replies
presence       the scripts that know who is present, and their replies
spread         which of several servers carries a group (sans-I/O)
location       LOCATION and OPTIONS: where a server is, and how a connection to it is made
sentinel       which server is the primary of a service, by the word of its sentinels
subscriber     the one connection of this process that receives, and its loop
pool           the connections that publish
wire           one connection: a socket, and the replies that come out of it
subscriptions  which groups are wanted, received, on their way (sans-I/O)
watchdog       when the way of a message is tried, and when it is lost (sans-I/O)
commands       what is sent to the server, in bytes (sans-I/O)
examination    what a deployment should know of the server
faults         what went wrong, in a sentence that says what to do (sans-I/O)
"""

from .backend import RedisGroups

__all__ = ["RedisGroups"]
