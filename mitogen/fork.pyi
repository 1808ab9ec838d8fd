import mitogen.core
import mitogen.parent

FORK_SUPPORTED: bool

class Error(mitogen.core.StreamError): ...

def on_fork() -> None: ...
