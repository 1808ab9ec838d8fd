# SPDX-License-Identifier: BSD-3-Clause
"""
Find the imports that a code object performs, by reading its bytecode.

Reading bytecode instead of the syntax tree means that imports which the
compiler has removed are not reported, and that a module whose ``.pyc`` file is
at hand need not be parsed again.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import sys

import opcode


_EXTENDED_ARG = opcode.EXTENDED_ARG
_HAVE_ARGUMENT = opcode.HAVE_ARGUMENT
_IMPORT_NAME = opcode.opmap['IMPORT_NAME']
_LOAD_CONST = opcode.opmap['LOAD_CONST']

# New in 3.14: the operand is itself the (small) integer that is pushed.
_LOAD_SMALL_INT = opcode.opmap.get('LOAD_SMALL_INT', -1)

# 3.15 has None among constants that need no place in the code object. Its
# operand of IMPORT_NAME has two bits about laziness below the name's number.
_LOAD_COMMON_CONSTANT = -1
_LAZY_BITS = 0
if sys.version_info >= (3, 15):
    _LOAD_COMMON_CONSTANT = opcode.opmap['LOAD_COMMON_CONSTANT']
    _LAZY_BITS = 2


def _byte_operations(code):
    """
    Yield `(opcode, operand)` for code in the format of Python 2: one byte, or
    three bytes for an operation that has an operand.
    """
    data = bytearray(code.co_code)
    high = 0
    index = 0
    while index < len(data):
        op = data[index]
        if op < _HAVE_ARGUMENT:
            index += 1
            continue
        operand = high | data[index + 1] | (data[index + 2] << 8)
        index += 3
        if op == _EXTENDED_ARG:
            high = operand << 16
        else:
            high = 0
            yield op, operand


def _word_operations(code):
    """
    Yield `(opcode, operand)` for code in the format of Python 3.6 and newer:
    every operation is two bytes. Inline caches (3.11) look like operation 0
    with an operand that nobody asks for.
    """
    data = code.co_code
    high = 0
    for index in range(0, len(data), 2):
        op = data[index]
        operand = high | data[index + 1]
        if op == _EXTENDED_ARG:
            high = operand << 8
        else:
            high = 0
            yield op, operand


def _imports_by_walking(code, operations):
    """
    Yield the imports in `code`. The compiler always pushes the level and the
    list of names straight before the import, so the two youngest constants
    are the ones.
    """
    names = code.co_names
    consts = code.co_consts
    level = fromlist = None
    for op, operand in operations(code):
        if op == _LOAD_CONST:
            level, fromlist = fromlist, consts[operand]
        elif op == _LOAD_SMALL_INT:
            level, fromlist = fromlist, operand
        elif op == _LOAD_COMMON_CONSTANT:
            # Neither a level nor a list of names is one, but for None.
            level, fromlist = fromlist, None
        elif op == _IMPORT_NAME:
            yield level, names[operand >> _LAZY_BITS], fromlist or ()


def _imports_by_dis(code):
    """
    Scan imports by way of :mod:`dis`: slower, but right for every interpreter
    whose bytecode nobody has looked at yet.
    """
    import dis
    level = fromlist = None
    for ins in dis.get_instructions(code):
        if ins.opname.startswith('LOAD_'):
            # The operation depends on the constant, and on the version.
            level, fromlist = fromlist, ins.argval
        elif ins.opname == 'IMPORT_NAME':
            if type(level) is not int:
                raise ValueError('bytecode that is not known: %s before '
                                 'IMPORT_NAME' % (level,))
            # 3.15 prints a remark about laziness behind the name.
            yield level, ins.argval.split(' ')[0], fromlist or ()


def codeobj_imports(co):
    """
    Yield one tuple `(level, module name, names)` for every import statement
    that the code object itself performs, in order and with duplicates. Nested
    code objects (functions, classes) are not looked into.

    :param co:
        Code object, as made by :func:`compile`.
    :returns:
        Generator of tuples. `level` is the number of leading dots, 0 for an
        absolute import, -1 for Python 2's implicit relative import. `names`
        is the tuple of names after ``import`` in a ``from`` statement,
        ``('*',)`` for a star, empty for a plain ``import``.
    """
    if sys.version_info < (3,):
        return _imports_by_walking(co, _byte_operations)
    if sys.version_info < (3, 16):
        return _imports_by_walking(co, _word_operations)
    return _imports_by_dis(co)


def _is_for_type_checkers(co):
    """
    Yield for each import of a code object, in order, whether ``if
    TYPE_CHECKING:`` keeps it from being performed.
    """
    import dis
    end, asked = -1, False
    for ins in dis.get_instructions(co):
        if ins.opname == 'EXTENDED_ARG':
            continue
        if ins.opname == 'IMPORT_NAME':
            yield ins.offset < end
        elif asked and 'JUMP_' in ins.opname and 'IF_FALSE' in ins.opname:
            end = max(end, ins.argval)
        # From 3.13 on the name is made a truth value before the jump.
        asked = ins.opname.startswith('LOAD_') and ins.argval == 'TYPE_CHECKING' or asked and ins.opname == 'TO_BOOL'


def _imports_when_run(co):
    """
    Yield what :func:`codeobj_imports` does, without the imports that only a
    type checker sees.
    """
    found = codeobj_imports(co)
    if 'TYPE_CHECKING' not in co.co_names or sys.version_info < (3,):
        return found
    return (each for each, left_out in zip(found, _is_for_type_checkers(co)) if not left_out)
