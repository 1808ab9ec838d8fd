"""A service that a child runs for its parent."""

import mitogen.service


class Idle(mitogen.service.Service):
    """Answers, and does nothing else."""

    @mitogen.service.expose(policy=mitogen.service.AllowParents())
    def nothing(self):
        return None


class Counter(object):
    """A file to write to that keeps nothing."""

    def __init__(self):
        self.size = 0

    def write(self, data):
        self.size += len(data)


def fetch(context, path):
    """Get a file of another context and return its size."""
    counter = Counter()
    mitogen.service.FileService.get(context, path, counter)
    return counter.size
