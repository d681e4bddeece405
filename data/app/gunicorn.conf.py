"""How the API is served. gunicorn reads this file by itself; its command line has the last word."""

import os
from urllib.parse import quote

from gunicorn.glogging import Logger


class AccessLog(Logger):
    """A log of paths as they were sent: one line a request, no query strings."""

    def atoms(self, *request: object) -> dict:
        """Return what ``access_log_format`` may name."""
        atoms = super().atoms(*request)
        return atoms | {"U": quote(atoms["U"] or "", encoding="latin-1")}


bind = "0.0.0.0:" + os.environ.get("PORT", "8080")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 4
preload_app = True  # one start, one secret for all workers; a bad setting ends gunicorn at once
graceful_timeout = 8  # `docker stop` waits 10 seconds, then kills
accesslog = "-"
access_log_format = '%(t)s %(h)s "%(m)s %(U)s" %(s)s %(M)s ms'
logger_class = AccessLog
control_socket_disable = True  # it would need a place to write
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a heartbeat, kept in memory
