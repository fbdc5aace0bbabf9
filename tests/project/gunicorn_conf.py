"""gunicorn, with so short a timeout that a test can outlive it."""

bind = "127.0.0.1:0"
workers = 1
timeout = 4
graceful_timeout = 3
control_socket_disable = True
