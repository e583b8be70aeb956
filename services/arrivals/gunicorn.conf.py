"""How gunicorn runs the arrivals service: one process whose threads wait for the stores."""

import os

wsgi_app = "functions_framework:create_app('arrivals', 'main.py', 'http')"
bind = f"{os.environ.get('HOST', '0.0.0.0')}:{os.environ.get('PORT', '8080')}"
workers = 1
threads = 32
# A store that does not answer is given up earlier than this.
timeout = 60
# Cloud Run kills 10 s after SIGTERM.
graceful_timeout = 9
# Nobody controls a container from inside.
control_socket_disable = True
# Gunicorn's own files of its workers' heartbeats, where the root file system is read-only.
worker_tmp_dir = "/dev/shm"
