"""How fast does a file of the parent come to a child through FileService?

--count is the size in MiB. The child counts what arrives and keeps nothing of it.
"""

import os
import tempfile

import harness


def with_mitogen(bench):
    with bench.figure('file_service_256_mib'):
        import mitogen.service
        import remote_service
        with tempfile.NamedTemporaryFile() as source, harness.mitogen_router() as router:
            block = os.urandom(harness.MIB)
            for _ in range(bench.count):
                source.write(block)
            source.flush()
            files = mitogen.service.FileService(router)
            pool = mitogen.service.Pool(router, services=[files], size=2)
            files.register(source.name)
            context = router.local()
            amount = bench.count * harness.MIB

            def fetch():
                if context.call(remote_service.fetch, router.myself(), source.name) != amount:
                    raise ValueError('the file did not arrive whole')

            fetch()
            harness.report_rate(bench, 'file_service_256_mib', fetch, amount / 1e6, at_least=2, warm=False)
            pool.stop()


if __name__ == '__main__':
    harness.main(globals())
