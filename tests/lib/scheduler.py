"""
Hands the rest of a file to a new process when a process of tests ends in the middle of one, as
``hanging`` has it when a test takes too long. pytest-xdist would run that test again in a new
process, and again in the next, without end. Here it has failed, and a new process goes on with the
others of its file.
"""

import pytest

try:
    from xdist.scheduler import LoadFileScheduling
except ImportError:
    LoadFileScheduling = object


class Scheduler(LoadFileScheduling):
    """
    Gives files to processes, and the test that ended its process to none.
    """

    def remove_node(self, node):
        """
        Return the name of the test that ran when this process ended, if one did.
        """
        files = self.assigned_work[node]
        running = next((name for tests in files.values() for name, done in tests.items() if not done), None)
        for tests in files.values():
            if running in tests:
                tests[running] = True
        for name in [name for name, tests in files.items() if all(tests.values())]:
            # A process that is given a file of which nothing is left to run says nothing any more.
            del files[name]
        super().remove_node(node)
        return running

    def _reschedule(self, node):
        # A process runs a test only when it knows the next one, or that there is none.
        left = None
        while left != len(self.workqueue):
            left = len(self.workqueue)
            super()._reschedule(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getvalue('dist') == 'loadfile':
        return Scheduler(config, log)
