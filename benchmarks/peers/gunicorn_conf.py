"""gunicorn, one worker, as it comes but for a listen queue that takes thousands of connections at once."""

workers = 1
backlog = 4096
control_socket_disable = True
