#include "socket_object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD _Atomic int number; /* the descriptor plus 1; 0 when closed, or when a program made the object */
} SocketObject;

static int descriptor(PyObject *obj)
{
    return ((SocketObject *) obj)->number - 1;
}

static PyObject *socket_fileno(PyObject *obj, PyObject *unused)
{
    (void) unused;
    return PyLong_FromLong(descriptor(obj));
}

static PyObject *socket_shutdown(PyObject *obj, PyObject *how)
{
    long which = PyLong_AsLong(how);
    if (which == -1 && PyErr_Occurred())
        return NULL;
    int fd = descriptor(obj);
    if (fd < 0)
        errno = EBADF;
    if (fd < 0 || shutdown(fd, (int) which))
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* The descriptor is given up whatever close() says: after an error its number may be another
 * file's. */
static int close_once(PyObject *obj)
{
    int fd = atomic_exchange(&((SocketObject *) obj)->number, 0) - 1;
    return fd < 0 ? 0 : close(fd);
}

static PyObject *socket_close(PyObject *obj, PyObject *unused)
{
    (void) unused;
    if (close_once(obj))
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static void socket_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    close_once(obj);
    type->tp_free(obj);
    Py_DECREF(type);
}

static int connected_pair(int fds[2])
{
#ifdef SOCK_CLOEXEC
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
#else
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
        return -1;
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    return 0;
#endif
}

/* Owns fd from the start, so it is closed if there is no memory. */
static PyObject *socket_new(mg_state *st, int fd)
{
    SocketObject *self = (SocketObject *) st->Socket->tp_alloc(st->Socket, 0);
    if (self)
        self->number = fd + 1;
    else
        close(fd);
    return (PyObject *) self;
}

PyObject *mg_socket_pair(mg_state *st)
{
    int fds[2];
    if (connected_pair(fds))
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *first = socket_new(st, fds[0]), *second = socket_new(st, fds[1]);
    PyObject *pair = first && second ? PyTuple_Pack(2, first, second) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(second);
    return pair;
}

static PyMethodDef socket_methods[] = {
    {"fileno", socket_fileno, METH_NOARGS, "The descriptor, -1 once it is closed."},
    {"shutdown", socket_shutdown, METH_O, "shutdown(how): as shutdown(2). OSError."},
    {"close", socket_close, METH_NOARGS, "Close the descriptor, unless that has been done. OSError."},
    {NULL, NULL, 0, NULL}};
static PyType_Slot socket_slots[] = {{Py_tp_dealloc, socket_dealloc},
                                     {Py_tp_methods, socket_methods},
                                     {Py_tp_doc, "One end of a pair of connected sockets, made by socketpair()."},
                                     {0, NULL}};
PyType_Spec mg_socket_spec = {"_mitogen_core.Socket", sizeof(SocketObject), 0, Py_TPFLAGS_DEFAULT, socket_slots};
