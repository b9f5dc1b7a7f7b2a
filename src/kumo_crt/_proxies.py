"""The HTTP proxy of an endpoint, as the environment names it.

Follows curl and Python itself: ``HTTPS_PROXY`` for https endpoints, ``HTTP_PROXY`` for http
ones, ``ALL_PROXY`` for both, each also in lower case, which wins; ``NO_PROXY`` lists exceptions.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit


def _environment(name: str) -> str:
    return os.environ.get(name.lower()) or os.environ.get(name) or ""


def proxy_for(endpoint: str, argument: str | None) -> str | None:
    """The proxy to reach an endpoint by.

    Args:
        endpoint: ``http(s)://host[:port]``.
        argument: The caller's choice; empty for no proxy, None to look at the environment.

    Returns:
        ``http://[user:password@]host:port``, or None for a direct connection.

    Raises:
        ValueError: It is no URL of an HTTP proxy.
    """
    parts = urlsplit(endpoint)
    if argument is not None:
        return _checked(argument, "proxy") if argument else None
    for name in (f"{parts.scheme.upper()}_PROXY", "ALL_PROXY"):
        value = _environment(name)
        if value:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            exempt = is_exempt(parts.hostname or "", port, _environment("NO_PROXY"))
            return None if exempt else _checked(value, name)
    return None


def _checked(value: str, source: str) -> str:
    url = value if "://" in value else f"http://{value}"
    parts = urlsplit(url)
    try:
        valid = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        valid = False
    if not valid or parts.query or parts.path.strip("/"):
        # The value may hold a password: it is not repeated.
        raise ValueError(
            f"{source}: expected http://[user:password@]host:port. Proxies that speak TLS or SOCKS "
            "themselves are not supported: name another, or exempt the endpoint with NO_PROXY"
        )
    return f"http://{parts.netloc}"


def is_exempt(host: str, port: int, exceptions: str) -> bool:
    """Whether a list of exceptions names a host.

    Args:
        host: Host name or address, without brackets.
        port: Its port.
        exceptions: Separated by commas: ``*``; host names, which stand for names below them too,
            with a dot in front or not; addresses; networks such as ``10.0.0.0/8``; each but the
            network also with ``:port``.
    """
    host = host.lower().rstrip(".")
    address = _address(host)
    for entry in exceptions.lower().split(","):
        name = entry.strip()
        if name == "*":
            return True
        if address is not None and "/" in name:
            try:
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            except ValueError:
                pass  # no network
            continue
        name, wanted_port = _split_port(name)
        if not name or wanted_port not in (None, port):
            continue
        if address is not None:
            if _address(name) == address:
                return True
        elif host == name.strip(".") or host.endswith("." + name.strip(".")):
            return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _split_port(entry: str) -> tuple[str, int | None]:
    """A name and its port, from ``name``, ``name:port``, an IPv6 address or ``[address]:port``."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:
        name, port = entry, ""
    return name, int(port) if port.isascii() and port.isdigit() else None
