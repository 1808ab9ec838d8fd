"""
Distributions that a test makes: files, and a RECORD of them, as pip leaves them; one may have an
extension.
"""

import os
import subprocess
import sysconfig
import zipfile

#: Of the extension that is built: its ABI is any CPython's from 3.6 on.
TAG = 'cp36-abi3-%s' % sysconfig.get_platform().replace('-', '_').replace('.', '_')

SOURCE = '''
#define Py_LIMITED_API 0x03060000
#include <Python.h>
static PyObject *answer(PyObject *m, PyObject *a) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "%(name)s", "", 0, methods};
PyMODINIT_FUNC PyInit_%(name)s(void) { return PyModuleDef_Init(&definition); }
'''


def build_extension(folder, name):
    """
    Build an extension module that has a function ``answer``; return the path of its file.
    """
    path = os.path.join(str(folder), name + '.abi3.so')
    source = os.path.join(str(folder), name + '.c')
    with open(source, 'w') as fp:
        fp.write(SOURCE % {'name': name})
    subprocess.check_call(['cc', '-shared', '-fPIC', '-I', sysconfig.get_paths()['include'], source, '-o', path])
    return path


def metadata(name, version, tag, paths):
    """
    Return the files that describe a distribution, relative path -> content.
    """
    info = '%s-%s.dist-info/' % (name.replace('-', '_'), version)
    found = {
        info + 'METADATA': 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' % (name, version),
        info + 'WHEEL': 'Wheel-Version: 1.0\nTag: %s\n' % (tag,),
    }
    record = ''.join('%s,,\n' % path for path in sorted(paths) + sorted(found) + [info + 'RECORD'])
    return dict(found, **{info + 'RECORD': record})


def install(folder, name, files, version='1.0', tag='py3-none-any', listed=()):
    """
    Write the files, relative path -> text or bytes, and the metadata of a distribution.

    :param listed: paths that its RECORD has although they are not there.
    """
    files = dict(files, **metadata(name, version, tag, list(files) + list(listed)))
    for path, content in files.items():
        target = os.path.join(str(folder), path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, 'wb') as fp:
            fp.write(content if isinstance(content, bytes) else content.encode())


def make_wheel(folder, name, files, version='1.0', tag='py3-none-any'):
    """
    Write a wheel with such files into a folder.
    """
    files = dict(files, **metadata(name, version, tag, list(files)))
    path = os.path.join(str(folder), '%s-%s-%s.whl' % (name, version, tag))
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in sorted(files.items()):
            archive.writestr(name, content)
    return path
