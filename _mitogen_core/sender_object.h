/* Sender: a method and nothing else. The attributes of a sender are in the dict of the Python
 * subclass. So it has the layout of a plain object, and Channel can derive from it and from
 * Receiver. */
#ifndef MG_SENDER_OBJECT_H
#define MG_SENDER_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_state.h"

extern PyType_Spec mg_sender_spec;

#endif
