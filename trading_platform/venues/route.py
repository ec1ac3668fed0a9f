"""The way that orders take to a venue: what compliance asks of every one of them, measured rather than configured."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """`exchange` is where the order goes; the rest is None until it was measured.

    `source_ip` is the local address that the system sends from (behind a translating router, the venue sees another);
    `clock_offset_ms` how far the venue's clock is ahead of ours.
    """

    exchange: str
    source_ip: str | None = None
    clock_offset_ms: float | None = None


def local_address(host: str, port: int) -> str | None:
    """The address that connections to `host` leave from, by the routing table; nothing is sent. None without a route.

    Resolves the name, which may block: call it away from an event loop.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None
