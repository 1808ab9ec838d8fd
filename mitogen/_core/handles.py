# SPDX-License-Identifier: BSD-3-Clause
"""
The handles that messages go to, and the id that no context has.
"""

from __future__ import absolute_import  # house

from mitogen.core import _SELDOM  # house


GET_MODULE = 100
CALL_FUNCTION = 101
FORWARD_LOG = 102
DEL_ROUTE = 104
SHUTDOWN = 106
LOAD_MODULE = 107
CALL_SERVICE = 110
GET_RESOURCE = 112
LOAD_RESOURCE = 113
#: As CALL_FUNCTION, for a call that does not wait for the main thread: our
#: parents start children of ours by it.
CALL_AT_ONCE = 130
IS_DEAD = 999
#: No context has this id. A message with this `auth_id` gives orders to none.
NOBODY = 0xffffffff

if _SELDOM:
    ADD_ROUTE = 103
    ALLOCATE_ID = 105
    FORWARD_MODULE = 108
    DETACHING = 109
    STUB_CALL_SERVICE = 111
    HAVE_MODULES = 114
    #: Name of the resource that is a module's source.
    _SOURCE_RESOURCE = u'\0source'
    #: The modules that are directly inside a package: their names with a NUL
    #: between, and a slash behind those of packages.
    _MODULES_RESOURCE = u'\0modules'
    #: In the same form what is in a folder of a package, the slash marks
    #: folders. Further names, with slashes, say which folder.
    _FOLDER_RESOURCE = u'\0folder'
    #: In place of a package a request names a distribution, or nothing, for
    #: all of them: its name, version, modules at the top level and entry points
    #: with a NUL between. With a further name: that file of its metadata.
    _DISTRIBUTION_RESOURCE = u'\0distribution'
