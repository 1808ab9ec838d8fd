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

_LOAD_NAME = opcode.opmap['LOAD_NAME']
_LOAD_ATTR = opcode.opmap['LOAD_ATTR']
_COMPARE_OP = opcode.opmap['COMPARE_OP']
_JUMP_IF_FALSE = opcode.opmap.get('POP_JUMP_IF_FALSE', opcode.opmap.get('POP_JUMP_FORWARD_IF_FALSE'))

# Operands of absolute jumps count bytes, from 3.10 on pairs of them.
_JUMP_UNIT = 1 if sys.version_info >= (3, 10) else 2

# Low bits of operands that are no part of a number.
_ATTR_BITS = 1 if sys.version_info >= (3, 12) else 0
_COMPARE_BITS = 5 if sys.version_info >= (3, 13) else 4 if sys.version_info >= (3, 12) else 0

_EQUAL = opcode.cmp_op.index('==')
_MAIN = set(['__name__', '__main__'])

# 3.15 has None among constants that need no place in the code object. Its
# operand of IMPORT_NAME has two bits about laziness below the name's number.
_LOAD_COMMON_CONSTANT = -1
_LAZY_BITS = 0
if sys.version_info >= (3, 15):
    _LOAD_COMMON_CONSTANT = opcode.opmap['LOAD_COMMON_CONSTANT']
    _LAZY_BITS = 2

#: Operations that push a constant.
_LOADS = (_LOAD_CONST, _LOAD_SMALL_INT, _LOAD_COMMON_CONSTANT)

#: Operations between a condition and its jump. From 3.13 on a name is made a truth value before it.
_CACHES = b'\0'
_NOTHING = (0, opcode.opmap.get('TO_BOOL', 0))


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


def _imports_by_walking(code):
    """
    Yield the imports in code of Python 2. The compiler always pushes the level and the
    list of names straight before the import, so the two youngest constants
    are the ones.
    """
    names = code.co_names
    consts = code.co_consts
    level = fromlist = None
    for op, operand in _byte_operations(code):
        if op == _LOAD_CONST:
            level, fromlist = fromlist, consts[operand]
        elif op == _IMPORT_NAME:
            yield level, names[operand], fromlist or ()


class _Words(object):
    """
    Code in the format of Python 3.6 and newer: every operation is two bytes. It is searched and
    read backwards, since few of its operations matter here.

    :param code: Code object.
    """
    def __init__(self, code):
        self._names = code.co_names
        self._consts = code.co_consts
        #: Inline caches (3.11) look like operation 0.
        self._ops = code.co_code[::2]
        self._args = code.co_code[1::2]

    def _find(self, op):
        """
        Yield each place of an operation.
        """
        index = self._ops.find(op)
        while index >= 0:
            yield index
            index = self._ops.find(op, index + 1)

    def _operand(self, index):
        """
        Return the operand of an operation, and the place before it.
        """
        operand, shift = self._args[index], 8
        index -= 1
        while index >= 0 and self._ops[index] == _EXTENDED_ARG:
            operand |= self._args[index] << shift
            shift += 8
            index -= 1
        return operand, index

    def _constant(self, index):
        """
        Return the youngest constant that was pushed up to a place, and the place before it.
        """
        while self._ops[index] not in _LOADS:
            index -= 1
        op = self._ops[index]
        operand, index = self._operand(index)
        if op == _LOAD_CONST:
            operand = self._consts[operand]
        elif op == _LOAD_COMMON_CONSTANT:
            # Neither a level nor a list of names is one, but for None.
            operand = None
        return operand, index

    def imports(self):
        """
        Yield pairs of place and import. The compiler always pushes the level and the list of names
        straight before the import.
        """
        for index in self._find(_IMPORT_NAME):
            operand, before = self._operand(index)
            fromlist, before = self._constant(before)
            level, _ = self._constant(before)
            yield index, (level, self._names[operand >> _LAZY_BITS], fromlist or ())

    def _pushed_text(self, index):
        """
        Return the name or text that is pushed at a place, and the place before it.
        """
        op = self._ops[index]
        operand, before = self._operand(index)
        if op == _LOAD_CONST:
            return self._consts[operand], before
        if op == _LOAD_NAME or op == _LOAD_ATTR:
            return self._names[operand >> (_ATTR_BITS if op == _LOAD_ATTR else 0)], before
        return None, before

    def _is_never_true(self, index):
        """
        Tell whether the condition of a jump is one that only a type checker or a main program
        meets.
        """
        _, index = self._operand(index)
        while self._ops[index] in _NOTHING:
            index -= 1
        if self._ops[index] != _COMPARE_OP:
            return self._pushed_text(index)[0] == 'TYPE_CHECKING'
        operand, index = self._operand(index)
        text, index = self._pushed_text(index)
        return operand >> _COMPARE_BITS == _EQUAL and set([text, self._pushed_text(index)[0]]) == _MAIN

    def never_run(self):
        """
        Return pairs of first place and end, for operations below such conditions.
        """
        found = []
        for index in self._find(_JUMP_IF_FALSE):
            if self._is_never_true(index):
                end, _ = self._operand(index)
                if _JUMP_IF_FALSE in opcode.hasjabs:
                    end //= _JUMP_UNIT
                else:
                    end += len(self._ops) - len(self._ops[index + 1:].lstrip(_CACHES))
                found.append((index, end))
        return found


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
        return _imports_by_walking(co)
    if sys.version_info < (3, 16):
        return (found for _, found in _Words(co).imports())
    return _imports_by_dis(co)


def _imports_when_run(co):
    """
    Yield what :func:`codeobj_imports` does, without the imports that only a type checker sees, and
    those of a module that runs as the main program.
    """
    if sys.version_info < (3,) or sys.version_info >= (3, 16) or \
            'TYPE_CHECKING' not in co.co_names and '__name__' not in co.co_names:
        return codeobj_imports(co)
    words = _Words(co)
    never = words.never_run()
    return (found for index, found in words.imports()
            if not any(first < index < end for first, end in never))
