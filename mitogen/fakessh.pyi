from collections.abc import Sequence
from typing import Any, Optional

import mitogen.core

class Error(mitogen.core.Error): ...

def run(
    dest: mitogen.core.Context, router: mitogen.core.Router, args: Sequence[str], deadline: Any = None,
    econtext: Optional[mitogen.core.ExternalContext] = None,
) -> int: ...
