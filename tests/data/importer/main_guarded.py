"""
A program whose child calls one of its own functions.
"""

import mitogen.utils


def where_am_i():
    import mitogen
    return __name__, mitogen.context_id


@mitogen.utils.with_router
def main(router):
    context = router.local()
    print(context.call(where_am_i))


if __name__ == '__main__':
    main()
