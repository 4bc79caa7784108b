"""Addresses: "host:port"."""

from __future__ import annotations

DEFAULT_HOST = "127.0.0.1"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port", "[::1]:port" or ":port" (which means 127.0.0.1).

    Raises:
        ValueError: it is none of them; the text says what is wrong.
    """
    if not isinstance(address, str):
        raise TypeError(f"an address is a str like '127.0.0.1:4000', not {address!r}")
    host, colon, digits = address.rpartition(":")
    if not colon:
        raise ValueError(f"{address!r} is no address: expected HOST:PORT, like 127.0.0.1:4000")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > 65535:
        raise ValueError(f"{address!r} is no address: the port must be 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r} is no address: an IPv6 host goes in [brackets]")
    return host or DEFAULT_HOST, int(digits)


def normalize_address(address: str) -> str:
    """The address in full: ":4000" becomes "127.0.0.1:4000".

    Raises:
        ValueError: it is no address.
    """
    host, port = split_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


__all__ = ["DEFAULT_HOST", "normalize_address", "split_address"]
