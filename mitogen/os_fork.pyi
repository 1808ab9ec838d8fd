from collections.abc import Iterable

import mitogen.core
import mitogen.service

class Corker:
    brokers: Iterable[mitogen.core.Broker]
    pools: Iterable[mitogen.service.Pool]
    def __init__(
        self, brokers: Iterable[mitogen.core.Broker] = (), pools: Iterable[mitogen.service.Pool] = (),
    ) -> None: ...
    def cork(self) -> None: ...
    def uncork(self) -> None: ...
