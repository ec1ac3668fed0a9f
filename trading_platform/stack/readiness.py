"""Is it up? Checks that a service is ready; each answers within two seconds and never raises."""

import http.client
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

ANSWER_WITHIN_SECONDS = 2.0


def http_ok(url: str) -> Callable[[], bool]:
    """Ready when GET `url` (http only) answers 2xx."""
    parts = urlsplit(url)

    def check() -> bool:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN_SECONDS)
        try:
            connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return check


def listens(port: int, host: str = "127.0.0.1") -> Callable[[], bool]:
    """Ready when something accepts connections there."""

    def check() -> bool:
        try:
            with socket.create_connection((host, port), timeout=ANSWER_WITHIN_SECONDS):
                return True
        except OSError:
            return False

    return check
