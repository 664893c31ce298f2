"""A link to a server that a test can freeze: what is sent stays on the way, and no end hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading


class Link:
    """Listens on a port of its own and passes on what comes, both ways, until it is frozen."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.flows = threading.Event()
        self.flows.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Pass on nothing from now on; new connections are accepted, and hear nothing."""
        self.flows.clear()

    def close(self) -> None:
        """End all connections."""
        self.flows.set()
        for one in (self.listener, *self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                self.flows.wait()
                server = socket.create_connection(self.server)
                self.open += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.flows.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
