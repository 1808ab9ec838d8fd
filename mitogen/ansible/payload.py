# SPDX-License-Identifier: BSD-3-Clause
"""
A module as Ansible sends it: a wrapper's text with an archive in it. Here it
is taken apart, so that the archive travels once, and the wrapper not at all.
"""

from __future__ import absolute_import

import base64
import hashlib
import io
import re
import struct
import zipfile
import zlib

#: Where an archive begins: not in arguments of a module that look like one. In these a quotation
#: mark has a backslash before it.
BEGIN = re.compile(br'''(?:\bzip_data=|\bZIPDATA = )"{0,2}('|")(?=UEsDB)''')

#: The last statement of the wrapper, since ansible-core 2.19.
CALL = b'\nif __name__ == "__main__":\n    _ansiballz_main('

#: Bytes of the header before a file in an archive; it has the lengths of what else stands there.
LOCAL_HEADER, AT_LENGTHS, LENGTHS = 30, 26, struct.Struct('<HH')

LOADER = 'ansible.module_utils._internal._ansiballz._loader'

#: The wrapper before 2.19. Nothing stands between the two statements unless coverage is measured.
OLD_RUN = re.compile(
    r"basic\._ANSIBLE_ARGS = json_params\n\s+runpy\.run_module\(mod_name='([\w.]+)', "
    r"init_globals=dict\(_module_fqn='\1', _modlib_path=modlib_path\),\s+run_name='__main__', alter_sys=True\)")
OLD_PARAMS = re.compile(r'^    ANSIBALLZ_PARAMS = (.*)$', re.M)


class Payload(object):
    """
    :ivar digest: of the archive.
    :ivar archive: bytes, base64.
    :ivar name: short name of the module.
    :ivar call: how it is run; see `zygote.py`.
    """

    def __init__(self, archive, name, call):
        self.digest, self.archive, self.name, self.call = hashlib.sha1(archive).digest(), archive, name, call


def take_apart(data):
    """
    Return the `Payload` in what Ansible would pipe into an interpreter, or
    None if it is something else.
    """
    if b'_ansiballz_main' not in data[:20000] and b'_ansiballz_main' not in data[-20000:]:
        return None
    found = find_archive(data)
    if not found:
        return None
    head, archive, tail = found
    split = head.rfind(CALL)
    try:
        if split >= 0:
            return read_call(archive, head[split:] + tail)
        return read_old(archive, (head + tail).decode('utf-8'))
    except Exception:
        # A release of Ansible that we do not know calls it with other things.
        return None


def find_archive(data):
    """
    Return (text before an archive, archive, text after it), or None.
    """
    begin = BEGIN.search(data)
    end = data.find(begin.group(1), begin.end()) if begin else -1
    if end < 0:
        return None
    return data[:begin.end()], data[begin.end():end], data[end:]


def read_call(archive, text):
    """
    Read the call at the end of a wrapper of 2.19 and newer. It is a Python expression of Ansible's
    own making.
    """
    import datetime
    found = {}

    def note(**arguments):
        found.update(arguments)

    exec(compile(text, '<ansiballz>', 'exec', dont_inherit=True),
         {'__name__': '__main__', 'datetime': datetime, '_ansiballz_main': note})
    for name in 'zip_data', 'date_time':
        found.pop(name, None)
    name = found.pop('ansible_module')
    call = {'way': 'loader', 'loader': LOADER, 'files': found.pop('rlimit_nofile', 0)}
    found['json_params'] = found.pop('params').encode('utf-8')
    call['arguments'] = found
    return Payload(archive, name, call)


def read_old(archive, text):
    run, params = OLD_RUN.search(text), OLD_PARAMS.search(text)
    if not run or not params or 'import resource' in text:
        return None
    import ast
    return Payload(archive, run.group(1).rpartition('.')[2], {
        'way': 'runpy', 'module': run.group(1), 'params': ast.literal_eval(params.group(1)).encode('utf-8')})


def unpack(archive):
    """
    Return ([(path, digest)], {digest: text as it stands in the archive, deflated}) of an archive. A
    text is the same bytes in each archive, so it travels as it is.
    """
    members, texts = [], {}
    data = base64.b64decode(archive)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        for info in opened.infolist():
            if info.compress_type == zipfile.ZIP_DEFLATED:
                begin = info.header_offset + LOCAL_HEADER + sum(LENGTHS.unpack_from(data, info.header_offset + AT_LENGTHS))
                text = data[begin:begin + info.compress_size]
            else:
                deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
                text = deflate.compress(opened.read(info)) + deflate.flush()
            digest = hashlib.sha1(text).digest()
            members.append((info.filename, digest))
            texts[digest] = text
    return members, texts
