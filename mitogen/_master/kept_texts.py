# SPDX-License-Identifier: BSD-3-Clause
"""
The texts that are kept beside a copy of this package that is built, since to make them takes a
short program longer than all else.
"""

from __future__ import absolute_import  # house

import binascii  # house
import os  # house
import zlib  # house

from mitogen.master import _get_core_source, _get_full_core_source, _make_reduced, _mark_of, _minimize  # house
from mitogen.master import ModuleFinder, ModuleResponder  # house


def _packed_text(text):
    """
    Return text or bytes in the form in which they are kept.
    """
    text = text if isinstance(text, bytes) else text.encode('utf-8')
    return binascii.b2a_base64(zlib.compress(text, 9)).decode().strip()


def _modules_to_keep():
    """
    Return module name -> (mark of its source, its minified source in the form in which it is kept),
    for the modules of this package that children may import.
    """
    import mitogen._core_shipment
    import pkgutil
    # The core has texts of its own, and a host seldom is a master.
    absent = [name.partition('.')[0] for name in mitogen._core_shipment._ABSENT] + ['core', 'master']
    finder, found = ModuleFinder(), {}

    def keep(package, path):
        for _, name, is_package in pkgutil.iter_modules(path):
            if package == 'mitogen' and name in absent:
                continue
            fullname = '%s.%s' % (package, name)
            source = finder.get_module_source(fullname)[1]
            if source is not None and ModuleResponder.minify_safe_re.search(source):
                found[fullname] = _mark_of(source), _packed_text(_minimize(fullname, '', source))
            if is_package:
                keep(fullname, [os.path.join(folder, name) for folder in path])
    keep('mitogen', mitogen.__path__)
    return found


def _texts_to_keep():
    """
    Return the text of the module `mitogen._core_texts`, for a copy of this package that is built. A
    system without what reduces the core has no such module.
    """
    texts = {None: [_get_core_source()]}
    for key in (True, False), (True, True), (False, True):
        texts[key] = _make_reduced(*key)
    lines = ['# Written by setup.py when this copy was built: see _made_before() in mitogen.master.',
             'SOURCE = %r' % (_mark_of(_get_full_core_source()),), 'TEXTS = {']
    for key in sorted(texts, key=str):
        members = []
        for text in texts[key]:
            members.append(repr(text and _packed_text(text)).lstrip('u'))
        lines.append('    %r: [%s],' % (key, ', '.join(members)))
    lines += ['}', 'MODULES = {']
    for name, kept in sorted(_modules_to_keep().items()):
        lines.append('    %r: %r,' % (name, kept))
    return '\n'.join(lines + ['}', ''])
