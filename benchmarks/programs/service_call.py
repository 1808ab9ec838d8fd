"""How long does a call of a service that runs in a child take, there and back?"""

import harness


def with_mitogen(bench):
    with bench.figure('service_call'):
        try:
            import mitogen.service  # noqa: F401
        except ImportError as error:
            raise harness.Skip('no mitogen.service here: %s' % (error,))
        import remote_service
        with harness.mitogen_router() as router:
            context = router.local()
            harness.report_time(
                bench, 'service_call',
                lambda: context.call_service(remote_service.Idle, 'nothing'),
            )


if __name__ == '__main__':
    harness.main(globals())
