"""Loads the frameworks in the order that works, where both are installed."""

import contextlib
import signal
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


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C is not ignored, as it is in what a shell runs in the background."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
