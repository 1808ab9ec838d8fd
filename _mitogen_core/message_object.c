#include "message_object.h"

#include "arguments.h"
#include "base/well_known.h"
#include "codec/read.h"
#include "codec/write.h"
#include "errors.h"
#include "fields.h"
#include "later.h"

/* --- fields --- */

static PyObject *long_of(mg_state *st, uint32_t value)
{
    return value ? PyLong_FromUnsignedLong(value) : Py_NewRef(st->zero);
}

PyObject *mg_hdr_tuple(const mg_hdr *hdr)
{
    return Py_BuildValue("(IIIIIi)", hdr->dst_id, hdr->src_id, hdr->auth_id, hdr->handle, hdr->reply_to,
                         (int) hdr->enc);
}

static MessageObject *message_alloc(mg_state *st, PyTypeObject *type)
{
    MessageObject *m = (MessageObject *) type->tp_alloc(type, 0);
    if (m)
        m->st = st;
    return m;
}

static PyObject *message_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void) args, (void) kwargs;
    mg_state *st = mg_state_of_type(type);
    if (!st || mg_need_configured(st))
        return NULL;
    MessageObject *m = message_alloc(st, type);
    if (!m)
        return NULL;
    m->src_id = mg_state_get(&st->own_id);
    m->auth_id = Py_NewRef(m->src_id);
    m->enc = Py_NewRef(st->enc_mgc);
    m->payload.data = Py_NewRef(st->empty_bytes);
    return (PyObject *) m;
}

/* The encoding of a frame, or 0 for a number that is none. */
static int16_t enc_of(PyObject *obj)
{
    int overflow;
    long value = obj && PyLong_Check(obj) ? PyLong_AsLongAndOverflow(obj, &overflow) : 0;
    if (value <= 0 || value > INT16_MAX)
        return 0;
    int16_t enc = (int16_t) value;
    if (!mg_enc_known(enc))
        return 0;
    return enc;
}

static int raise_enc(PyObject *enc)
{
    PyErr_Format(PyExc_ValueError, "Message: enc must be one of ENC_MGC, ENC_PKL, ENC_BIN, not %R",
                 enc ? enc : Py_None);
    return -1;
}

static int set_fields(PyObject *self, PyObject *kwargs)
{
    PyObject *name, *value;
    Py_ssize_t pos = 0;
    while (kwargs && PyDict_Next(kwargs, &pos, &name, &value))
        if (PyObject_SetAttr(self, name, value))
            return -1;
    return 0;
}

static int message_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args)) {
        PyErr_SetString(PyExc_TypeError, "Message() takes keyword arguments only");
        return -1;
    }
    if (set_fields(self, kwargs))
        return -1;
    PyObject *enc = mg_field(self, &((MessageObject *) self)->enc);
    int bad = enc_of(enc) ? 0 : raise_enc(enc);
    Py_XDECREF(enc);
    return bad;
}

static int message_traverse(PyObject *self, visitproc visit, void *arg)
{
    MessageObject *m = (MessageObject *) self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(m->dst_id);
    Py_VISIT(m->src_id);
    Py_VISIT(m->auth_id);
    Py_VISIT(m->handle);
    Py_VISIT(m->reply_to);
    Py_VISIT(m->enc);
    Py_VISIT(m->router);
    Py_VISIT(m->receiver);
    return mg_payload_traverse(&m->payload, visit, arg);
}

static void clear_fields(MessageObject *m)
{
    Py_CLEAR(m->dst_id);
    Py_CLEAR(m->src_id);
    Py_CLEAR(m->auth_id);
    Py_CLEAR(m->handle);
    Py_CLEAR(m->reply_to);
    Py_CLEAR(m->enc);
    Py_CLEAR(m->router);
    Py_CLEAR(m->receiver);
}

static int message_clear(PyObject *self)
{
    clear_fields((MessageObject *) self);
    mg_payload_clear(&((MessageObject *) self)->payload);
    return 0;
}

static void message_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_fields((MessageObject *) self);
    int large = mg_payload_clear(&((MessageObject *) self)->payload);
    type->tp_free(self);
    Py_DECREF(type);
    if (large)
        mg_run_later(); /* the bytes may be much memory, and the GIL is held */
}

static PyObject *get_data(PyObject *self, void *closure)
{
    (void) closure;
    MessageObject *m = (MessageObject *) self;
    PyObject *data;
    Py_BEGIN_CRITICAL_SECTION(self);
    data = mg_payload_data(m->st, &m->payload, m->router);
    Py_END_CRITICAL_SECTION();
    return data;
}

static int set_data(PyObject *self, PyObject *value, void *closure)
{
    (void) closure;
    if (!value || !PyBytes_Check(value)) {
        PyErr_Format(PyExc_AssertionError, "Message.data must be bytes, not %.100s",
                     value ? Py_TYPE(value)->tp_name : "deleted");
        return -1;
    }
    mg_payload old;
    Py_BEGIN_CRITICAL_SECTION(self);
    old = ((MessageObject *) self)->payload;
    ((MessageObject *) self)->payload = (mg_payload) {.data = Py_NewRef(value)};
    Py_END_CRITICAL_SECTION();
    mg_payload_clear(&old);
    mg_run_later();
    return 0;
}

static int parse_u32(PyObject *obj, const char *name, uint32_t *out)
{
    *out = 0;
    int found = obj && obj != Py_None ? mg_find_id(obj, out) : 1;
    if (!found)
        PyErr_Format(PyExc_ValueError, "Message.%s must be a number of 32 bits, not %R", name, obj);
    return found > 0 ? 0 : -1;
}

static int field_u32(PyObject *obj, const char *name, uint32_t *out)
{
    if (!obj || PyLong_CheckExact(obj))
        return parse_u32(obj, name, out);
    Py_INCREF(obj); /* code of a program may run, which may put something else in the field */
    int bad = parse_u32(obj, name, out);
    Py_DECREF(obj);
    return bad;
}

Py_ssize_t mg_message_size(MessageObject *m)
{
    Py_ssize_t size;
    Py_BEGIN_CRITICAL_SECTION(m);
    size = mg_payload_size(&m->payload);
    Py_END_CRITICAL_SECTION();
    return size;
}

/* REQUIRES(m). The size is looked at last, after all that may run code of a program. */
static int read_hdr(MessageObject *m, mg_hdr *hdr)
{
    if (field_u32(m->dst_id, "dst_id", &hdr->dst_id) || field_u32(m->src_id, "src_id", &hdr->src_id) ||
        field_u32(m->auth_id, "auth_id", &hdr->auth_id) || field_u32(m->handle, "handle", &hdr->handle) ||
        field_u32(m->reply_to, "reply_to", &hdr->reply_to))
        return -1;
    hdr->enc = enc_of(m->enc);
    Py_ssize_t size = mg_payload_size(&m->payload);
    hdr->len = size > (Py_ssize_t) UINT32_MAX ? UINT32_MAX : (uint32_t) size;
    return 0;
}

int mg_message_hdr(MessageObject *m, mg_hdr *hdr)
{
    int bad;
    Py_BEGIN_CRITICAL_SECTION(m);
    bad = read_hdr(m, hdr);
    Py_END_CRITICAL_SECTION();
    return bad;
}

int mg_message_set(mg_state *st, PyObject *msg, mg_message_field field, PyObject *value)
{
    static const char *const names[] = {"dst_id", "handle", "reply_to"};
    if (!PyObject_TypeCheck(msg, st->Message))
        return PyObject_SetAttrString(msg, names[field], value);
    MessageObject *m = (MessageObject *) msg;
    PyObject **slot = field == MG_FIELD_DST_ID ? &m->dst_id : field == MG_FIELD_HANDLE ? &m->handle : &m->reply_to;
    mg_put_field(msg, slot, Py_NewRef(value));
    return 0;
}

int mg_message_is_dead(MessageObject *m)
{
    int overflow, is_dead;
    Py_BEGIN_CRITICAL_SECTION(m);
    is_dead =
        m->reply_to && PyLong_Check(m->reply_to) && PyLong_AsLongAndOverflow(m->reply_to, &overflow) == MG_IS_DEAD;
    Py_END_CRITICAL_SECTION();
    return is_dead;
}

int mg_message_is_addressed(MessageObject *m)
{
    int is_addressed;
    Py_BEGIN_CRITICAL_SECTION(m);
    is_addressed = m->dst_id && m->dst_id != Py_None && m->handle && m->handle != Py_None;
    Py_END_CRITICAL_SECTION();
    return is_addressed;
}

int mg_message_has_come(MessageObject *m)
{
    int has_come;
    Py_BEGIN_CRITICAL_SECTION(m);
    has_come = m->router && m->router != Py_None;
    Py_END_CRITICAL_SECTION();
    return has_come;
}

PyObject *mg_message_from_frame(mg_state *st, mg_frame *frame, PyObject *router)
{
    MessageObject *m = st->message_type ? message_alloc(st, (PyTypeObject *) st->message_type) : NULL;
    if (!m) {
        mg_frame_unref(frame);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "_mitogen_core is not configured");
        return NULL;
    }
    const mg_hdr *hdr = mg_frame_hdr(frame);
    m->payload.frame = frame;
    m->dst_id = long_of(st, hdr->dst_id);
    m->src_id = long_of(st, hdr->src_id);
    m->auth_id = hdr->auth_id == hdr->src_id ? Py_XNewRef(m->src_id) : long_of(st, hdr->auth_id);
    m->handle = long_of(st, hdr->handle);
    m->reply_to = long_of(st, hdr->reply_to);
    m->enc = hdr->enc == MG_ENC_PKL ? Py_NewRef(st->enc_pkl) : PyLong_FromLong(hdr->enc);
    m->router = Py_XNewRef(router);
    if (!m->dst_id || !m->src_id || !m->auth_id || !m->handle || !m->reply_to || !m->enc) {
        Py_DECREF(m);
        return NULL;
    }
    return (PyObject *) m;
}

/* REQUIRES(m): from the look at the size on, no other thread may change the payload. */
static mg_frame *make_frame(MessageObject *m, mg_hdr *hdr)
{
    if (read_hdr(m, hdr) || !hdr->enc)
        return NULL;
    if (mg_payload_size(&m->payload) > (Py_ssize_t) UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a message payload of 4 GiB or more cannot be sent");
        return NULL;
    }
    return mg_payload_frame(&m->payload, hdr);
}

mg_frame *mg_message_frame(MessageObject *m)
{
    mg_hdr hdr;
    mg_frame *frame;
    Py_BEGIN_CRITICAL_SECTION(m);
    frame = make_frame(m, &hdr);
    Py_END_CRITICAL_SECTION();
    if (!frame && !PyErr_Occurred()) {
        PyObject *enc = mg_field((PyObject *) m, &m->enc);
        raise_enc(enc);
        Py_XDECREF(enc);
    }
    return frame;
}

/* --- methods --- */

PyObject *mg_message_pickled(mg_state *st, PyTypeObject *cls, PyObject *const *objs, Py_ssize_t n)
{
    MessageObject *m = message_alloc(st, cls);
    if (!m)
        return NULL;
    m->src_id = mg_state_get(&st->own_id);
    m->auth_id = Py_NewRef(m->src_id);
    m->enc = Py_NewRef(st->enc_pkl);
    mg_pickled *pickled = m->payload.pickled = PyMem_Malloc(sizeof *pickled);
    if (!pickled) {
        Py_DECREF(m);
        return PyErr_NoMemory();
    }
    mg_pickled_init(pickled);
    if (mg_pickle(&st->codec, objs, n, pickled)) {
        Py_DECREF(m);
        return NULL;
    }
    return (PyObject *) m;
}

/* A class with a constructor of its own is called, with what the pure core gives it. Takes the
 * reference to m. */
static PyObject *construct(PyObject *cls, MessageObject *m, PyObject *const *values, PyObject *names)
{
    PyObject *made = NULL, *none = PyTuple_New(0), *data = get_data((PyObject *) m, NULL);
    PyObject *fields = data ? Py_BuildValue("{sOsO}", "data", data, "enc", m->enc) : NULL;
    for (Py_ssize_t i = 0; fields && names && i < PyTuple_GET_SIZE(names); i++)
        if (PyDict_SetItem(fields, PyTuple_GET_ITEM(names, i), values[i]))
            Py_CLEAR(fields);
    if (none && fields)
        made = PyObject_Call(cls, none, fields);
    Py_XDECREF(none);
    Py_XDECREF(data);
    Py_XDECREF(fields);
    Py_DECREF(m);
    return made;
}

static PyObject *message_pickled(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    mg_state *st = mg_state_of_type((PyTypeObject *) cls);
    if (!st || mg_need_configured(st))
        return NULL;
    PyObject *m = mg_message_pickled(st, (PyTypeObject *) cls, args, nargs);
    if (m && ((PyTypeObject *) cls)->tp_init != message_init)
        return construct(cls, (MessageObject *) m, args + nargs, kwnames);
    for (Py_ssize_t i = 0; m && kwnames && i < PyTuple_GET_SIZE(kwnames); i++)
        if (PyObject_SetAttr(m, PyTuple_GET_ITEM(kwnames, i), args[nargs + i]))
            Py_CLEAR(m);
    return m;
}

static int raise_call_error(mg_state *st, PyObject *obj)
{
    int is = PyObject_IsInstance(obj, st->CallError);
    if (is > 0)
        PyErr_SetObject((PyObject *) Py_TYPE(obj), obj);
    return is;
}

/* The message itself, if it came by a router, else NULL. The functions that make a Context and a
 * Sender take it as an argument. A borrowed reference. */
static PyObject *origin_of(MessageObject *m)
{
    return mg_message_has_come(m) ? (PyObject *) m : NULL;
}

static int look(MessageObject *m, int holes, mg_payload_view *view)
{
    int bad;
    Py_BEGIN_CRITICAL_SECTION(m);
    holes = holes && m->payload.frame && mg_frame_hdr(m->payload.frame)->enc == MG_ENC_PKL;
    bad = mg_payload_look(m->st, &m->payload, m->router, holes, view);
    Py_END_CRITICAL_SECTION();
    return bad;
}

/* The first object, by the default look-ups. */
static PyObject *read_first(MessageObject *m)
{
    mg_payload_view view;
    if (look(m, 1, &view))
        return NULL;
    PyObject *router = mg_field((PyObject *) m, &m->router); /* the called function may set another one */
    mg_unpickler up;
    mg_unpickler_init(&up, &m->st->codec, view.ptr, view.len, origin_of(m), 0);
    if (view.hole)
        mg_unpickler_set_hole(&up, view.hole, view.hole_at);
    PyObject *obj = mg_unpickle_next(&up);
    size_t longest = obj ? up.longest : 0;
    mg_unpickler_fini(&up);
    mg_payload_came(m->st, router, longest);
    Py_XDECREF(router);
    mg_payload_end_look(&view);
    if (!obj && !PyErr_Occurred())
        PyErr_SetString(m->st->StreamError, "invalid message: the payload is empty");
    return obj;
}

/* The exception that is set is raised anew, once slow_unpickle() has logged the payload. */
static void log_bad_payload(MessageObject *m)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    PyObject *r = PyObject_CallFunctionObjArgs(m->st->slow_unpickle, (PyObject *) m, Py_None, value, NULL);
    if (r) {
        PyErr_Restore(type, value, tb);
        Py_DECREF(r);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(tb);
}

/* DamagedError, which is a ValueError, for a message that holds no pickle. */
static int need_pickle(MessageObject *m)
{
    PyObject *obj = mg_field((PyObject *) m, &m->enc);
    long enc = obj ? PyLong_AsLong(obj) : 0;
    Py_XDECREF(obj);
    if (enc == MG_ENC_BIN)
        PyErr_SetString(m->st->codec.UnpicklingError, "a message of ENC_BIN holds bytes, not a pickle: use decode()");
    return enc == MG_ENC_BIN || (enc == -1 && PyErr_Occurred()) ? -1 : 0;
}

PyObject *mg_message_plain_value(MessageObject *m)
{
    if (mg_message_is_dead(m))
        return NULL;
    PyObject *obj = need_pickle(m) ? NULL : read_first(m);
    if (!obj || PyObject_IsInstance(obj, m->st->CallError))
        Py_CLEAR(obj);
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_Clear();
    return obj;
}

static PyObject *message_unpickle(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"throw", "throw_dead", "find_class", NULL};
    int do_throw = 1, throw_dead = 1;
    PyObject *find_class = Py_None, *obj;
    MessageObject *m = (MessageObject *) self;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|ppO:unpickle", names, &do_throw, &throw_dead, &find_class))
        return NULL;
    if (throw_dead && mg_message_is_dead(m))
        return mg_raise_dead(m->st, self);
    if (need_pickle(m))
        return NULL;
    if (find_class != Py_None)
        obj = PyObject_CallFunctionObjArgs(m->st->slow_unpickle, self, find_class, NULL);
    else if (!(obj = read_first(m)))
        log_bad_payload(m);
    if (obj && do_throw && raise_call_error(m->st, obj))
        Py_CLEAR(obj);
    return obj;
}

/* All objects that can be read, as a list. */
static PyObject *read_all(mg_unpickler *up)
{
    PyObject *obj, *list = PyList_New(0);
    while (list && (obj = mg_unpickle_next(up))) {
        if (PyList_Append(list, obj))
            Py_CLEAR(list);
        Py_DECREF(obj);
    }
    return list;
}

/* Takes the exception that is set, or None. New reference. */
static PyObject *take_exception(void)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (!type)
        Py_RETURN_NONE;
    PyErr_NormalizeException(&type, &value, &tb);
    Py_DECREF(type);
    Py_XDECREF(tb);
    return value;
}

/* _unpickle_all(deny) -> (list, error): every object, with the default look-ups or none, until
 * one is bad; error is then its exception. */
static PyObject *message_unpickle_all(PyObject *self, PyObject *arg)
{
    MessageObject *m = (MessageObject *) self;
    mg_payload_view view;
    int deny = PyObject_IsTrue(arg);
    if (deny < 0 || look(m, 0, &view))
        return NULL;
    mg_unpickler up;
    mg_unpickler_init(&up, &m->st->codec, view.ptr, view.len, origin_of(m), deny);
    PyObject *list = read_all(&up);
    mg_unpickler_fini(&up);
    mg_payload_end_look(&view);
    return list ? Py_BuildValue("(NN)", list, take_exception()) : NULL;
}

static PyObject *get_size(PyObject *self, void *closure)
{
    (void) closure;
    return PyLong_FromSsize_t(mg_message_size((MessageObject *) self));
}

static PyObject *get_is_special(PyObject *self, void *closure)
{
    (void) closure;
    int is_special;
    Py_BEGIN_CRITICAL_SECTION(self);
    is_special = mg_payload_is_special(&((MessageObject *) self)->payload);
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(is_special);
}

static PyObject *get_is_dead(PyObject *self, void *closure)
{
    (void) closure;
    return PyBool_FromLong(mg_message_is_dead((MessageObject *) self));
}

static PyMethodDef message_methods[] = {
    {"pickled", (PyCFunction) (void (*)(void)) message_pickled, METH_FASTCALL | METH_KEYWORDS | METH_CLASS,
     "pickled($type, /, *objs, **kwargs)\n--\n\nMake a message whose payload is the objects, one pickle each."},
    {"unpickle", (PyCFunction) (void (*)(void)) message_unpickle, METH_VARARGS | METH_KEYWORDS,
     "unpickle($self, /, throw=True, throw_dead=True, find_class=None)\n--\n\n"
     "Return the first object of the payload."},
    {"_unpickle_all", message_unpickle_all, METH_O,
     "_unpickle_all(deny) -> (list of all objects of the payload, None or why it ends there)."},
    {NULL, NULL, 0, NULL}};

#define FIELD(name) MG_FIELD(MessageObject, name, NULL)
static PyGetSetDef message_getset[] = {
    FIELD(dst_id),
    FIELD(src_id),
    FIELD(auth_id),
    FIELD(handle),
    FIELD(reply_to),
    FIELD(enc),
    FIELD(router),
    FIELD(receiver),
    {"data", get_data, set_data, "The payload, bytes.", NULL},
    {"_size", get_size, NULL, "Bytes of the payload.", NULL},
    {"_is_special", get_is_special, NULL, "False if no Sender is in the payload, and Python did not write it.", NULL},
    {"is_dead", get_is_dead, NULL, "True for a dead message.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot message_slots[] = {{Py_tp_new, message_new},
                                      {Py_tp_init, message_init},
                                      {Py_tp_dealloc, message_dealloc},
                                      {Py_tp_traverse, message_traverse},
                                      {Py_tp_clear, message_clear},
                                      {Py_tp_methods, message_methods},
                                      {Py_tp_getset, message_getset},
                                      {Py_tp_doc, "Message(**kwargs)\n--\n\nA message: header fields and payload."},
                                      {0, NULL}};

PyType_Spec mg_message_spec = {"_mitogen_core.Message", sizeof(MessageObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, message_slots};
