# SPDX-License-Identifier: BSD-3-Clause
"""
The first stage: the program on the command line of a starting child.
"""

from __future__ import absolute_import  # house

import binascii  # house
import zlib  # house


#: Runs the first stage. It is one line that any shell can quote. It takes the
#: current directory off the search path before it imports anything, since that
#: directory may be unreadable or hold a file called zlib.py.
_DECODER = (
    'import sys;sys.path[:]=filter(None,sys.path);import binascii,zlib;'
    'exec(zlib.decompress(binascii.a2b_base64(sys.argv[1]),-15))'
)

#: The first stage. Terse, since it travels on each command line, and
#: restricted to syntax that means the same in Python 2.7 and 3. It must not
#: read one byte beyond the payload that its header announces: frames follow on
#: the same descriptor.
#:
#: It waits with select() before each read, so that it does not matter whether
#: fd 0 blocks. `s` says at first whether this build of the package is here;
#: its core is then imported while the parent's answer is on the way. The
#: answer may still be the source (kind S), whose first line is `_UNPACK`.
_FIRST_STAGE = r'''
import gc,os,select
gc.disable()
s=0
if os.environ.get('MITOGEN_CORE')!='pure':
 try:
  import mitogen;mitogen.__path__
  s=mitogen.__build__==sys.argv[3]
 except Exception:0
os.write(1,('MITO000 %d %x %s\n'%(s,sys.hexversion,sys.argv[4])).encode())
if s:import mitogen.core
def b(e,d=b''):
 while len(d)<e:
  select.select([0],[],[])
  s=os.read(0,e-len(d))
  if not s:sys.exit('mitogen: EOF on stdin')
  d+=s
 return d
d=b(9)
s=d[:1]
if s not in b'CS':sys.exit('mitogen: bad header %r'%d)
d=b(int(d[1:],16))
if s==b'C':mitogen.core.ExternalContext(eval(d)).main()
else:
 d=zlib.decompress(d)
 exec(d.split(b'\n\n')[0])
'''

#: The first stage as a program, for an interpreter that we start ourselves.
#: No program in between limits its length or reads its quotes, and the child
#: need not load the modules that unpack it, unless it is sent source. Its fd 0
#: blocks, since `create_child` has made it so, and so it need not wait with
#: select().
_PLAIN_FIRST_STAGE = (
    'import sys;sys.path[:]=filter(None,sys.path)' +
    _FIRST_STAGE.replace('d=zlib.', 'import zlib;d=zlib.')
    .replace('  select.select([0],[],[])\n', '').replace(',select', '')
)

_first_stage_blob = None


def _get_first_stage_blob():
    """
    Return the first stage as it stands on a command line: deflated without
    zlib's frame, then base64 without newlines. Native string, made once.
    """
    global _first_stage_blob
    if _first_stage_blob is None:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
        raw = compressor.compress(_FIRST_STAGE.strip().encode('ascii'))
        raw += compressor.flush()
        blob = binascii.b2a_base64(raw).decode('ascii')
        _first_stage_blob = str(blob.replace(u'\n', u''))
    return _first_stage_blob
