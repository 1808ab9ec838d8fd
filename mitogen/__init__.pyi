from typing import Any, Callable, Optional, TypeVar

import mitogen.master
from mitogen import aio as aio
from mitogen._tree import (
    AuthError as AuthError,
    Caller as Caller,
    CallOptions as CallOptions,
    CommandError as CommandError,
    CommandTimeout as CommandTimeout,
    Completed as Completed,
    ConnectError as ConnectError,
    ConnectionLost as ConnectionLost,
    ConnectTimeout as ConnectTimeout,
    Copied as Copied,
    DeadlineExceeded as DeadlineExceeded,
    DownHost as DownHost,
    FileError as FileError,
    Group as Group,
    Host as Host,
    HostDown as HostDown,
    HostExecutor as HostExecutor,
    HostInfo as HostInfo,
    HostKeyError as HostKeyError,
    HostLink as HostLink,
    NoPython as NoPython,
    ObservedTask as ObservedTask,
    Progress as Progress,
    RemoteError as RemoteError,
    Result as Result,
    Stream as Stream,
    Synced as Synced,
    Tree as Tree,
    ValueRefused as ValueRefused,
    connect as connect,
)
from mitogen.values import register as register

_T = TypeVar('_T')

__build__: str
__version__: tuple[int | str, ...]
is_master: bool
context_id: int
parent_id: Optional[int]
parent_ids: list[int]

# In the program that is started, the name becomes what the function returned.
def main(
    log_level: str = ..., profiling: Optional[bool] = ...,
) -> Callable[[Callable[[mitogen.master.Router], _T]], Any]: ...
