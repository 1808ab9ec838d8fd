"""
A program in one file, without an execution guard.
"""

import mitogen


def where_am_i():
    return __name__, mitogen.context_id


@mitogen.main()
def main(router):
    context = router.local()
    print(context.call(where_am_i))
