"""A service that a child runs for its parent."""

import mitogen.service


class Idle(mitogen.service.Service):
    """Answers, and does nothing else."""

    @mitogen.service.expose(policy=mitogen.service.AllowParents())
    def nothing(self):
        return None
