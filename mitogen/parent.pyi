# The names of mitogen.parent that a program may use. Names that only connection methods and other
# parts of the package need are left out.

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Optional, TypedDict, TypeVar, Union

from typing_extensions import Required, Self, TypeAlias, Unpack

import mitogen.core
import mitogen.limits

_T = TypeVar('_T')
_Text: TypeAlias = Union[str, bytes]

class ConnectError(mitogen.core.StreamError):
    detail: str

class EofError(mitogen.core.StreamError):
    detail: str

class ValueRefused(mitogen.core.CallError, TypeError):
    where: Optional[str]
    host: Optional[str]

class CancelledError(ConnectError): ...

def get_sys_executable() -> str: ...
def get_default_remote_name() -> str: ...
def is_immediate_child(msg: mitogen.core.Message, stream: Optional[mitogen.core.Stream]) -> bool: ...
def upgrade_router(econtext: mitogen.core.ExternalContext) -> None: ...

# ---- calls

class CallChain:
    closures_msg: str
    lambda_msg: str
    method_msg: str
    context: mitogen.core.Context
    chain_id: Optional[str]
    def __init__(self, context: mitogen.core.Context, pipelined: bool = False) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _1: Optional[type[BaseException]], _2: Optional[BaseException], _3: Optional[TracebackType],
    ) -> None: ...
    @classmethod
    def make_chain_id(cls) -> str: ...
    def reset(self) -> None: ...
    def make_msg(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> mitogen.core.Message: ...
    def call_no_reply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None: ...
    def call_async(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> mitogen.core.Receiver: ...
    def call(self, fn: Callable[..., _T], *args: Any, **kwargs: Any) -> _T: ...

class Context(mitogen.core.Context):
    via: Optional[Context]
    router: Router
    call_chain_class: type[CallChain]
    default_call_chain: CallChain
    def __init__(
        self, router: Optional[mitogen.core.Router], context_id: int, name: Optional[str] = None,
    ) -> None: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    def call_async(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> mitogen.core.Receiver: ...
    def call_no_reply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None: ...
    def call(self, fn: Callable[..., _T], *args: Any, **kwargs: Any) -> _T: ...
    def shutdown(self, wait: bool = False) -> Any: ...

# ---- timers

class Timer:
    when: float
    func: Callable[[], object]
    active: bool
    def __init__(self, when: float, func: Callable[[], object]) -> None: ...
    def __lt__(self, other: Timer) -> bool: ...
    def __le__(self, other: Timer) -> bool: ...
    def __gt__(self, other: Timer) -> bool: ...
    def __ge__(self, other: Timer) -> bool: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
    def cancel(self) -> None: ...

class TimerList:
    def __init__(self) -> None: ...
    def schedule(self, when: float, func: Callable[[], object]) -> Timer: ...
    def get_timeout(self) -> Optional[float]: ...
    def expire(self) -> None: ...

# ---- pollers

class PollPoller(mitogen.core.Poller): ...
class EpollPoller(mitogen.core.Poller): ...
class KqueuePoller(mitogen.core.Poller): ...

POLLERS: Sequence[type[mitogen.core.Poller]]
PREFERRED_POLLER: type[mitogen.core.Poller]
POLLER_LIGHTWEIGHT: type[mitogen.core.Poller]

# ---- connection methods, for programs that write their own

class Process:
    name: Optional[str]
    pid: int
    stdin: Any
    stdout: Any
    stderr: Any
    def __init__(self, pid: int, stdin: Any, stdout: Any, stderr: Any = None) -> None: ...
    def poll(self) -> Optional[int]: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...

class Options:
    name: Optional[str]
    python_path: Any
    connect_timeout: float
    remote_name: Optional[str]
    max_message_size: int
    unidirectional: bool
    connect_deadline: float
    debug: bool
    profiling: bool
    def __init__(
        self, max_message_size: int, name: Optional[str] = None, remote_name: Optional[str] = None,
        python_path: Union[None, str, Sequence[str]] = None, debug: bool = False,
        connect_timeout: Optional[float] = None, profiling: bool = False, unidirectional: bool = False,
        old_router: Optional[Router] = None,
    ) -> None: ...

class Connection:
    options_class: type[Options]
    create_child: Any
    create_child_args: Any
    child_is_immediate_subprocess: bool
    name_prefix: str
    options: Any
    context: Optional[Context]
    proc: Optional[Process]
    exception: Optional[BaseException]
    detached: bool
    def __init__(self, options: Options, router: Router) -> None: ...
    def get_python_argv(self) -> list[str]: ...
    def get_boot_command(self) -> list[str]: ...
    def get_econtext_config(self) -> dict[str, Any]: ...
    def get_preamble(self) -> bytes: ...
    def start_child(self) -> Process: ...
    def connect(self, context: Context) -> None: ...

# ---- what each method of the router takes, as keyword arguments

class _Local(TypedDict, total=False):
    via: Optional[Context]
    name: Optional[str]
    remote_name: Optional[str]
    python_path: Union[None, str, Sequence[str]]
    debug: bool
    connect_timeout: Optional[float]
    profiling: bool
    unidirectional: bool

class _Buildah(_Local, total=False):
    container: Required[str]
    username: Optional[str]
    buildah_path: Optional[str]

class _Doas(_Local, total=False):
    username: Optional[str]
    password: Optional[_Text]
    doas_path: Optional[str]
    password_prompt: Optional[_Text]
    incorrect_prompts: Optional[Sequence[_Text]]

class _Docker(_Local, total=False):
    container: Optional[str]
    image: Optional[str]
    username: Optional[str]
    docker_path: Optional[str]

class _Fork(_Local, total=False):
    on_fork: Optional[Callable[[], object]]
    on_start: Optional[Callable[[mitogen.core.ExternalContext], object]]

class _Incus(_Local, total=False):
    container: Required[str]
    incus_path: Optional[str]

class _Jail(_Local, total=False):
    container: Required[str]
    username: Optional[str]
    jexec_path: Optional[str]

class _Kubectl(_Local, total=False):
    pod: Required[str]
    kubectl_path: Optional[str]
    kubectl_args: Optional[Sequence[str]]

class _Srun(_Local, total=False):
    jobid: Union[str, int, None]
    node: Optional[str]
    partition: Optional[str]
    srun_path: Optional[str]
    srun_args: Optional[Sequence[str]]

class _Lxc(_Local, total=False):
    container: Required[str]
    lxc_attach_path: Optional[str]

class _Lxd(_Local, total=False):
    container: Required[str]
    lxc_path: Optional[str]

class _Podman(_Local, total=False):
    container: Required[str]
    username: Optional[str]
    podman_path: Optional[str]

class _Setns(_Local, total=False):
    container: Required[str]
    kind: Required[str]
    username: Optional[str]
    docker_path: Optional[str]
    lxc_path: Optional[str]
    lxc_info_path: Optional[str]
    machinectl_path: Optional[str]

class _Ssh(_Local, total=False):
    hostname: Required[str]
    username: Optional[str]
    ssh_path: Optional[str]
    port: Optional[int]
    check_host_keys: str
    password: Optional[_Text]
    identity_file: Optional[str]
    compression: bool
    ssh_args: Optional[Sequence[str]]
    keepalive_enabled: bool
    keepalive_count: int
    keepalive_interval: int
    identities_only: bool
    ssh_debug_level: Optional[int]

class _Su(_Local, total=False):
    username: Optional[str]
    password: Optional[_Text]
    su_path: Optional[str]
    password_prompt: Optional[_Text]
    incorrect_prompts: Optional[Sequence[_Text]]

class _Sudo(_Local, total=False):
    username: Optional[str]
    sudo_path: Optional[str]
    password: Optional[_Text]
    preserve_env: Optional[bool]
    set_home: Optional[bool]
    sudo_args: Optional[Sequence[str]]
    login: Optional[bool]
    selinux_role: Optional[str]
    selinux_type: Optional[str]

class Router(mitogen.core.Router):
    connection_timeout_msg: str
    profiling: bool
    debug: bool
    @property
    def limits(self) -> mitogen.limits.Limits: ...
    def refuse(
        self, peer: Union[mitogen.core.Stream, mitogen.core.Context, None], name: str, text: str, *args: object,
    ) -> None: ...
    def add_route(self, target_id: int, stream: mitogen.core.Stream) -> None: ...
    def del_route(self, target_id: int) -> None: ...
    def get_streams(self) -> list[mitogen.core.Stream]: ...
    def allocate_id(self) -> int: ...
    def disconnect(self, context: mitogen.core.Context) -> None: ...
    def connect(self, method_name: str, name: Optional[str] = None, **kwargs: Any) -> Context: ...
    def proxy_connect(
        self, via_context: Context, method_name: str, name: Optional[str] = None, **kwargs: Any,
    ) -> Context: ...
    def buildah(self, **kwargs: Unpack[_Buildah]) -> Context: ...
    def doas(self, **kwargs: Unpack[_Doas]) -> Context: ...
    def docker(self, **kwargs: Unpack[_Docker]) -> Context: ...
    def fork(self, **kwargs: Unpack[_Fork]) -> Context: ...
    def incus(self, **kwargs: Unpack[_Incus]) -> Context: ...
    def jail(self, **kwargs: Unpack[_Jail]) -> Context: ...
    def kubectl(self, **kwargs: Unpack[_Kubectl]) -> Context: ...
    def local(self, **kwargs: Unpack[_Local]) -> Context: ...
    def lxc(self, **kwargs: Unpack[_Lxc]) -> Context: ...
    def lxd(self, **kwargs: Unpack[_Lxd]) -> Context: ...
    def podman(self, **kwargs: Unpack[_Podman]) -> Context: ...
    def setns(self, **kwargs: Unpack[_Setns]) -> Context: ...
    def srun(self, **kwargs: Unpack[_Srun]) -> Context: ...
    def ssh(self, **kwargs: Unpack[_Ssh]) -> Context: ...
    def su(self, **kwargs: Unpack[_Su]) -> Context: ...
    def sudo(self, **kwargs: Unpack[_Sudo]) -> Context: ...
