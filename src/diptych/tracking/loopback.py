"""Servers that this machine has for itself alone."""

import socket

from diptych.errors import UserError

HOST = "127.0.0.1"


class PortError(UserError):
    """There is no place for a server."""


def address_of(port: int) -> str:
    """Return the address of what this machine serves to itself."""
    return f"http://{HOST}:{port}"


def check_port(port: int) -> None:
    """Refuse a port on which no server of this process can listen.

    Raises:
        PortError: when the port is taken or forbidden.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise PortError(f"{HOST}:{port}: must be a free port (got {error})") from None
