"""
Builds the distribution ``mitogen``: the Python package, and the extension
``_mitogen_core`` wherever it can be built.

The package is complete without the extension: the pure core does the same job.
So a machine without a compiler, without Python's headers or without libev gets
the pure core, is told what is missing and how to get it, and the same text is
kept in the installed ``mitogen/_build.py``, where ``python -m mitogen`` finds it.

Environment variables:

``MITOGEN_PURE=1``
    Do not try to build the extension.
``MITOGEN_REQUIRE_NATIVE=1``
    Fail when the extension cannot be built.
``MITOGEN_WERROR=1``
    All compiler warnings, as errors. For this project's own builds.
"""

import glob
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import setuptools

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

NATIVE_PYTHON = (3, 9)

#: Where the sources of the extension are. The folders of the engine are listed, as one more holds
#: only its tests.
NATIVE_FOLDERS = ('_mitogen_core', '_mitogen_core/codec') + tuple(
    '_mitogen_core/engine/' + room for room in ('base', 'wire', 'sync', 'loop', 'net'))

HERE = os.path.dirname(os.path.abspath(__file__))

REMEDY = (
    'To get the fast core: install %s, then install again from the same source: '
    '"pip install --force-reinstall --no-cache-dir PATH".'
)


def read(*parts):
    with open(os.path.join(HERE, *parts), 'rb') as fp:
        return fp.read().decode('utf-8')


def get_version():
    """
    Return the PEP 440 version, read as text: importing the package would need
    it to be importable before it is built.
    """
    found = re.search(r'^__version__\s*=\s*\(([^)]*)\)', read('mitogen', '__init__.py'), re.M)
    return str('.'.join(part.strip().strip('\'"') for part in found.group(1).split(',') if part.strip()))


def get_checksum():
    """
    Return a short checksum of the sources: two builds of one version are the
    same if it is.
    """
    names = glob.glob(os.path.join(HERE, 'mitogen', '*.py')) + glob.glob(os.path.join(HERE, 'mitogen', '*', '*.py'))
    for folder in NATIVE_FOLDERS:
        names += glob.glob(os.path.join(HERE, folder, '*.[ch]'))
    found = hashlib.sha256()
    for name in sorted(os.path.relpath(name, HERE).replace(os.sep, '/') for name in names):
        found.update((name + '\n' + read(*name.split('/')).replace('\r\n', '\n')).encode('utf-8'))
    return found.hexdigest()[:12]


def with_checksum(text):
    """
    Return the text of ``mitogen/__init__.py`` as it is built.
    """
    return re.sub(r'^__build__ = .*$', "__build__ = '%s+%s'" % (get_version(), get_checksum()), text, count=1, flags=re.M)


def env_flag(name):
    return os.environ.get(name, '') not in ('', '0')


def why_not_native():
    """
    Return why this interpreter is not meant to have the extension, or None.
    """
    if env_flag('MITOGEN_PURE'):
        return 'MITOGEN_PURE was set when the package was built.'
    if platform.python_implementation() != 'CPython':
        return 'The fast core is for CPython %d.%d and newer; this is %s.' % (
            NATIVE_PYTHON + (platform.python_implementation(),)
        )
    if sys.version_info < NATIVE_PYTHON:
        return 'The fast core is for CPython %d.%d and newer; this is CPython %d.%d.' % (
            NATIVE_PYTHON + sys.version_info[:2]
        )
    return None


def native_sources():
    paths = []
    for pattern in NATIVE_FOLDERS:
        paths += [os.path.relpath(path, HERE) for path in sorted(glob.glob(os.path.join(HERE, pattern, '*.c')))]
    return paths


def native_extension(version):
    headers = [path for pattern in NATIVE_FOLDERS for path in glob.glob(os.path.join(HERE, pattern, '*.h'))]
    flags = ['-std=c11', '-O2', '-fvisibility=hidden']
    if env_flag('MITOGEN_WERROR'):
        flags += ['-Wall', '-Wextra', '-Werror']
    return Extension(
        '_mitogen_core',
        sources=native_sources(),
        depends=[os.path.relpath(path, HERE) for path in headers] + ['setup.py', 'mitogen/__init__.py'],
        include_dirs=['_mitogen_core', os.path.join('_mitogen_core', 'engine')],
        # The value that the headers of Python 3.9 and 3.10 define it with, once more.
        define_macros=[('MITOGEN_VERSION', '"%s"' % (version,)), ('_GNU_SOURCE', '1')],
        extra_compile_args=flags,
        libraries=['pthread'],
    )


def pkg_config_flags(name):
    """
    Return (compile flags, link flags) that pkg-config gives for a library, or
    None where it does not know the library or is not there.
    """
    tool = os.environ.get('PKG_CONFIG', 'pkg-config')
    try:
        cflags = subprocess.check_output([tool, '--cflags', name], stderr=subprocess.STDOUT)
        libs = subprocess.check_output([tool, '--libs', name], stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return shlex.split(cflags.decode()), shlex.split(libs.decode())


class MissingError(Exception):
    """
    Something the extension needs is not on this machine; its text says what
    and how to get it.
    """


class BuildPy(build_py):
    """
    Joins the modules that are in parts, and adds ``mitogen/_build.py`` to what
    is built, never to the source tree.
    """

    def find_package_modules(self, package, package_dir):
        found = build_py.find_package_modules(self, package, package_dir)
        if getattr(self, 'editable_mode', False):
            return found
        # Only a checkout has parts.
        return [entry for entry in found if entry[1] != '_house']

    def build_module(self, module, module_file, package):
        built = build_py.build_module(self, module, module_file, package)
        if module in HOUSE['PARTS'] and not getattr(self, 'editable_mode', False):
            with open(built[0], 'wb') as fp:
                fp.write(HOUSE['join'](module_file).encode('utf-8'))
        elif (package, module) == ('mitogen', '__init__') and not getattr(self, 'editable_mode', False):
            text = with_checksum(read('mitogen', '__init__.py'))
            with open(built[0], 'wb') as fp:
                fp.write(text.encode('utf-8'))
        return built

    def run(self):
        build_py.run(self)
        if not getattr(self, 'editable_mode', False):
            write_report(self.build_lib, why_not_native())
            write_core_texts(self.build_lib)


def write_report(build_lib, reason):
    """
    Record why the build that is installed has no extension; None when it has one.
    """
    folder = os.path.join(build_lib, 'mitogen')
    if not os.path.isdir(folder):
        os.makedirs(folder)
    with open(os.path.join(folder, '_build.py'), 'w') as fp:
        fp.write('# Written by setup.py when this copy was built.\n')
        fp.write('# Why it has no fast core, or None when it has.\n')
        fp.write('REASON = %r\n' % (reason,))


def write_core_texts(build_lib):
    """
    Have the package that was built write the texts that its masters send to starting children: to
    make them takes a short program longer than all else. A master makes them where that fails.
    """
    folder = os.path.abspath(build_lib)
    path = os.path.join(folder, 'mitogen', '_core_texts.py')
    if os.path.exists(path):
        os.unlink(path)
    program = 'import sys; sys.path.insert(0, sys.argv[1]); import mitogen.master as m; sys.stdout.write(m._texts_to_keep())'
    env = dict(os.environ, MITOGEN_CORE='pure', PYTHONDONTWRITEBYTECODE='1')
    proc = subprocess.Popen(
        [sys.executable, '-c', program, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=folder)
    text, why = proc.communicate()
    if proc.returncode:
        sys.stderr.write('mitogen: the texts for starting children are not made beforehand: %s\n' % (
            why.decode('utf-8', 'replace').strip().split('\n')[-1],))
        return
    with open(path, 'wb') as fp:
        fp.write(text)


class BuildExt(build_ext):
    """
    Builds the extension when everything it needs is there, and otherwise leaves
    it out with a plain word about what is missing.
    """

    def build_extensions(self):
        reason = None
        try:
            self.check_needs()
            build_ext.build_extensions(self)
        except MissingError:
            reason = str(sys.exc_info()[1])
        except Exception:
            # CompileError and its kin come from distutils or setuptools, by version.
            error = sys.exc_info()[1]
            if env_flag('MITOGEN_REQUIRE_NATIVE'):
                raise
            reason = 'Compiling the fast core failed: %s. The output of the build tells more (pip install -v).' % (
                error,
            )
        if reason is not None:
            self.give_up(reason)
        if not self.inplace:
            write_report(self.build_lib, reason)

    def give_up(self, reason):
        if env_flag('MITOGEN_REQUIRE_NATIVE'):
            raise SystemExit('MITOGEN_REQUIRE_NATIVE is set, and the fast core cannot be built. ' + reason)
        bar = '*' * 78
        text = '\n%s\nmitogen: the fast core is not built; the pure Python core is used.\n%s\n%s\n' % (
            bar, reason, bar,
        )
        sys.stderr.write(text)
        sys.stderr.flush()
        for ext in self.extensions:
            # An earlier build of the same tree may have left one behind.
            stale = self.get_ext_fullpath(ext.name)
            if not self.inplace and os.path.exists(stale):
                os.unlink(stale)
        self.extensions = []
        self.distribution.ext_modules = []

    def check_needs(self):
        """
        Find out what the machine has by compiling and linking, not by guessing
        at paths, and add libev's flags to the extension.
        """
        if not self.try_build('int main(void) { return 0; }', link=True):
            raise MissingError('No working C compiler was found. ' + REMEDY % (
                'a C compiler (Debian: apt install gcc libc6-dev python3-dev libev-dev)',
            ))
        if not self.try_build('#include <Python.h>\nint main(void) { return 0; }'):
            raise MissingError("Python's C headers (Python.h) were not found. " + REMEDY % (
                'the headers of this Python (Debian: apt install python3-dev libev-dev)',
            ))
        program = '#include <ev.h>\nint main(void) { return ev_version_major() != EV_VERSION_MAJOR; }'
        # Debian ships no libev.pc, other systems do, some of them out of the default path.
        for cflags, libs in filter(None, [pkg_config_flags('libev'), ([], ['-lev'])]):
            if self.try_build(program, cflags, libs, link=True):
                for ext in self.extensions:
                    ext.extra_compile_args = ext.extra_compile_args + cflags
                    ext.extra_link_args = ext.extra_link_args + libs
                return
        raise MissingError('libev was not found (header ev.h and library). ' + REMEDY % (
            'libev with its headers (Debian: apt install libev-dev; Fedora: dnf install libev-devel; '
            'macOS: brew install libev)',
        ))

    def try_build(self, program, cflags=(), libs=(), link=False):
        """
        Return whether a program compiles (and links) with the compiler that
        will build the extension.
        """
        folder = tempfile.mkdtemp()
        # The compiler's complaints about a probe say nothing that the message does not.
        saved = os.dup(2)
        try:
            path = os.path.join(folder, 'probe.c')
            with open(path, 'w') as fp:
                fp.write(program + '\n')
            sys.stderr.flush()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            try:
                objects = self.compiler.compile([path], output_dir=folder, extra_postargs=list(cflags))
                if link:
                    self.compiler.link_executable(objects, 'probe', output_dir=folder, extra_postargs=list(libs))
            except Exception:
                return False
            return True
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            shutil.rmtree(folder, ignore_errors=True)


#: How modules are made of parts. Imported, it would have the package run.
HOUSE = {}
exec(read('mitogen', '_house.py'), HOUSE)

VERSION = get_version()
UNFIT = why_not_native()

if UNFIT and env_flag('MITOGEN_REQUIRE_NATIVE'):
    raise SystemExit('MITOGEN_REQUIRE_NATIVE is set, but: ' + UNFIT)

#: Folders that Ansible looks into, and their files that are not Python's. None is a package: others
#: have files there.
ANSIBLE_FOLDERS = {
    'ansible_collections.mitogen.fast': ['meta/*.yml'],
    'ansible_collections.mitogen.fast.plugins.connection': [],
    'ansible_collections.mitogen.fast.plugins.doc_fragments': [],
    'ansible_mitogen.plugins.strategy': [],
}

#: The licence as an SPDX expression (PEP 639) from setuptools 77 on. Old Pythons have older
#: versions.
LICENCE = 'license_expression' if int(setuptools.__version__.split('.')[0]) >= 77 else 'license'

# Without the extension on purpose, the wheel is one for every Python.
OPTIONS = {'bdist_wheel': {'python_tag': 'py2.py3'}} if env_flag('MITOGEN_PURE') else {}

setup(
    name='mitogen',
    version=VERSION,
    description='Call Python functions on other hosts, as other users and in containers, with nothing installed there',
    long_description=read('README.rst'),
    long_description_content_type='text/x-rst',
    license_files=['LICENSE', 'LICENSE.libev'],
    author='the authors of this project',
    packages=['mitogen', 'mitogen._cli', 'mitogen._console', 'mitogen._files', 'mitogen._tasks', 'mitogen._tree', 'mitogen.ansible'] + sorted(ANSIBLE_FOLDERS),
    package_data=dict({'mitogen': ['py.typed', '*.pyi'], 'mitogen.ansible': ['plugins/connection/*.py']}, **ANSIBLE_FOLDERS),
    entry_points={'console_scripts': ['mitogen = mitogen.command:main']},
    ext_modules=[] if UNFIT or not native_sources() else [native_extension(VERSION)],
    options=OPTIONS,
    cmdclass={'build_py': BuildPy, 'build_ext': BuildExt},
    # Colours of the program mitogen, and completion of its words in a shell. It does its work
    # without them.
    extras_require={
        'cli': ['rich>=12; python_version >= "3.9"', 'shtab>=1.6; python_version >= "3.9"'],
        'otel': ['opentelemetry-api>=1.20'],
        'prometheus': ['prometheus-client'],
    },
    python_requires='>=2.7, !=3.0.*, !=3.1.*, !=3.2.*, !=3.3.*, !=3.4.*, !=3.5.*',
    zip_safe=False,
    keywords='remote execution, rpc, ssh, sudo, containers, ansible, distributed',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Intended Audience :: System Administrators',
        'Operating System :: POSIX',
        'Programming Language :: C',
        'Programming Language :: Python :: 2.7',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: Implementation :: CPython',
        'Programming Language :: Python :: Implementation :: PyPy',
        'Topic :: System :: Distributed Computing',
        'Topic :: System :: Systems Administration',
        'Typing :: Typed',
    ],
    **{LICENCE: 'BSD-3-Clause'}
)
