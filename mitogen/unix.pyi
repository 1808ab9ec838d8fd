from typing import Any, Optional

import mitogen.core
import mitogen.master
import mitogen.parent

class Error(mitogen.core.Error): ...

class ConnectError(Error):
    errno: Optional[int]

def is_path_dead(path: str) -> bool: ...
def make_socket_path() -> str: ...

class Listener(mitogen.core.Protocol):
    path: str
    def __init__(self, router: mitogen.core.Router, path: str) -> None: ...
    @classmethod
    def build_stream(
        cls, router: mitogen.core.Router, path: Optional[str] = None, backlog: int = 100,
    ) -> mitogen.core.Stream: ...
    def on_accept_client(self, sock: Any) -> None: ...

def connect(
    path: str, broker: Optional[mitogen.core.Broker] = None,
) -> tuple[mitogen.master.Router, mitogen.parent.Context]: ...
