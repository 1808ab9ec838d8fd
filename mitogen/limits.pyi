from typing import Any, Union

import mitogen.core

LOG: Any

class Limits:
    stalled_seconds: float
    service_calls: float
    service_bytes: float
    service_call_bytes: float
    open_files: float
    fetches: float
    path_bytes: float
    path_parts: float
    requests: float
    request_bytes: float
    unread_bytes: float
    announcement_bytes: float
    pushed_modules: float
    pushed_bytes: float
    shipped_bytes: float
    shipped_data_bytes: float
    id_blocks: float
    id_blocks_below: float
    routes: float
    control_bytes: float
    log_records_per_second: float
    log_bytes_per_second: float
    log_record_bytes: float

def of(router: mitogen.core.Router) -> Limits: ...
def may_log(about: object, topic: str, lines: int = 1) -> tuple[bool, str]: ...
def refuse(
    router: mitogen.core.Router, peer: Union[mitogen.core.Stream, mitogen.core.Context, None], name: str, text: str,
    *args: object,
) -> None: ...
