"""How gunicorn runs the push service: one process with the worker, and threads for it and for probes."""

import os

wsgi_app = "functions_framework:create_app('activator', 'main.py', 'http')"
bind = f"{os.environ.get('HOST', '0.0.0.0')}:{os.environ.get('PORT', '8080')}"
workers = 1
threads = 8
# A visit takes as long as it takes; its engine and Cloud Run's own limit end one that does not end.
timeout = 0
# Cloud Run kills 10 s after SIGTERM.
graceful_timeout = 9
# Nobody controls a container from inside.
control_socket_disable = True
# Gunicorn's own files of its workers' heartbeats, where the root file system is read-only.
worker_tmp_dir = "/dev/shm"
