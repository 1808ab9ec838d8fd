"""
Builds the whole extension for a test, outside what is installed: with other flags, and with the
engine's functions visible, among them the switch that makes an allocation fail.
"""

import concurrent.futures
import glob
import os
import shlex
import subprocess
import sysconfig

import mitogen

import places

SOURCES = os.path.join(places.ROOT, '_mitogen_core')


def build(folder, flags=('-O0',)):
    """
    Compile ``_mitogen_core`` into a folder, which can go to the front of sys.path, and return its
    path. FileNotFoundError where there is no compiler or no header.
    """
    compiler = shlex.split(os.environ.get('CC') or sysconfig.get_config_var('CC') or 'cc')
    include = sysconfig.get_path('include')
    if not os.path.exists(os.path.join(include, 'Python.h')):
        raise FileNotFoundError('Python.h')
    command = compiler + ['-std=c11', '-g', '-fPIC', '-D_GNU_SOURCE', '-I' + include, '-I' + SOURCES]
    command += ['-I' + os.path.join(SOURCES, 'engine')] + list(flags)
    command += ['-DMITOGEN_VERSION="%s"' % '.'.join(map(str, mitogen.__version__))]
    sources = [path for path in glob.glob(os.path.join(SOURCES, '**', '*.c'), recursive=True)
               if not path.startswith(os.path.join(SOURCES, 'engine', 'test') + os.sep)]

    def compile_one(path):
        out = os.path.join(folder, os.path.relpath(path, SOURCES).replace(os.sep, '-') + '.o')
        subprocess.check_call(command + ['-c', path, '-o', out])
        return out

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    target = os.path.join(folder, '_mitogen_core' + sysconfig.get_config_var('EXT_SUFFIX'))
    link = ['-undefined', 'dynamic_lookup'] if sysconfig.get_platform().startswith('macosx') else []
    subprocess.check_call(compiler + ['-shared'] + list(flags) + objects + link + ['-lev', '-lpthread', '-o', target])
    return target
