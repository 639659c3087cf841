"""Ports that a gateway listens on."""

from __future__ import annotations

import errno
import socket

__all__ = ["StartError", "cannot_listen", "require_port", "reserved_port"]


class StartError(Exception):
    """The gateway cannot start; the message says why and what to do."""


def cannot_listen(host: str, port: int, flag: str, error: Exception) -> StartError:
    """What to say of a port that cannot be had; ``flag`` chooses another."""
    if isinstance(error, OSError) and error.errno != errno.EADDRINUSE:
        return StartError(
            f"cannot listen on {host}, port {port} ({error.strerror}):"
            f" choose another with --host and {flag}"
        )
    return StartError(
        f"port {port} is taken on {host}: stop what holds it, or choose another with {flag}"
    )


def require_port(host: str, port: int, flag: str) -> None:
    """Raise if a port cannot be had, before gRPC finds out, which fills stderr with its own words.

    Raises:
        StartError: it is taken, or the address is none of this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        raise cannot_listen(host, port, flag, error) from error


def reserved_port(host: str, port: int, flag: str) -> socket.socket:
    """A socket that holds a port, and lets whoever asks for it too share it.

    Raises:
        StartError: it is taken, or the address is none of this machine's.
    """
    require_port(host, port, flag)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        reserved = socket.socket(family, kind)
        try:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind(address)
        except OSError:
            reserved.close()
            raise
    except OSError as error:
        raise cannot_listen(host, port, flag, error) from error
    return reserved
