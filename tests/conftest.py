"""Loads the frameworks in the order that works, where both are installed."""

import contextlib
import socket

import pytest

with contextlib.suppress(ModuleNotFoundError):
    import parity.frameworks  # noqa: F401


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every connection fail at once, as on a machine without a network."""

    def refuse(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
