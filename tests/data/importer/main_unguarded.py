"""
A program that would run itself again in its child.
"""

import mitogen.utils


def where_am_i():
    return __name__


def main(router):
    context = router.local()
    print(context.call(where_am_i))


mitogen.utils.log_to_file()
mitogen.utils.run_with_router(main)
