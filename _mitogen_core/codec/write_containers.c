/* A tuple or Kwargs gets its memo index when it is complete. Until then a cycle through it
 * writes it again. Only the first list or dict on the way breaks the cycle, if it is in the
 * memo; so even one with a single reference has to be there. mg_writer.open tells when. */
#include "codec/write_containers.h"

#include "wire/opcode.h"

/* As many items go between a MARK and its APPENDS or SETITEMS: bounds the stack of any reader. */
enum { BATCH = 1000 };

/* For a tuple that contains itself, by way of a list or dict. It is in the memo once its items
 * are written: drops the items, and takes the tuple from the memo. */
static int write_finished_tuple(mg_writer *w, Py_ssize_t n, uint32_t index)
{
    if (n > 3) {
        if (mg_put_byte(w->out, OP_POP_MARK) < 0)
            return -1;
    } else {
        for (Py_ssize_t i = 0; i < n; i++) {
            if (mg_put_byte(w->out, OP_POP) < 0)
                return -1;
        }
    }
    return mg_write_get(w, index);
}

int mg_write_tuple(mg_writer *w, PyObject *obj, int shared)
{
    static const uint8_t ops[] = {OP_EMPTY_TUPLE, OP_TUPLE1, OP_TUPLE2, OP_TUPLE3};
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    if (n == 0)
        return mg_put_byte(w->out, OP_EMPTY_TUPLE);

    if (n > 3 && mg_put_byte(w->out, OP_MARK) < 0)
        return -1;
    w->open += shared;
    for (Py_ssize_t i = 0; i < n; i++) {
        int rc = w->value(w, PyTuple_GET_ITEM(obj, i), 1);
        if (rc != 0)
            return rc;
    }
    w->open -= shared;
    if (shared) {
        mg_memo_entry *entry = mg_memo_find(w, obj);
        if (entry->obj != NULL)
            return write_finished_tuple(w, n, entry->index);
    }
    if (mg_put_byte(w->out, n > 3 ? OP_TUPLE : ops[n]) < 0)
        return -1;
    return shared ? mg_memo_put(w, obj) : 0;
}

/* Item i as a new reference, or NULL, without an exception, past the end. */
static inline PyObject *list_item(PyObject *list, Py_ssize_t i)
{
#ifdef Py_GIL_DISABLED
    PyObject *item = PyList_GetItemRef(list, i);
    if (item == NULL)
        PyErr_Clear(); /* IndexError is all it raises: another thread made the list shorter */
    return item;
#else
    if (i >= PyList_GET_SIZE(list))
        return NULL;
    PyObject *item = PyList_GET_ITEM(list, i);
    Py_INCREF(item);
    return item;
#endif
}

/* Writes items from i on, at most limit, and returns through i where it stopped. */
static int write_list_items(mg_writer *w, PyObject *list, Py_ssize_t *i, Py_ssize_t limit)
{
    PyObject *item;
    while (limit-- > 0 && (item = list_item(list, *i)) != NULL) {
        int rc = w->value(w, item, 2); /* the list's reference and the one held here */
        Py_DECREF(item);
        if (rc != 0)
            return rc;
        ++*i;
    }
    return 0;
}

/* An empty list was written: adds the items. */
static int write_all_items(mg_writer *w, PyObject *obj)
{
    Py_ssize_t i = 0;
    if (PyList_GET_SIZE(obj) == 1) {
        int rc = write_list_items(w, obj, &i, 1);
        if (rc != 0)
            return rc;
        return i == 1 ? mg_put_byte(w->out, OP_APPEND) : 0;
    }
    while (i < PyList_GET_SIZE(obj)) {
        if (mg_put_byte(w->out, OP_MARK) < 0)
            return -1;
        int rc = write_list_items(w, obj, &i, BATCH);
        if (rc != 0)
            return rc;
        if (mg_put_byte(w->out, OP_APPENDS) < 0)
            return -1;
    }
    return 0;
}

/* A list or dict, with what opens it and what writes its items. */
static int write_mutable(mg_writer *w, PyObject *obj, int shared, uint8_t op,
                         int (*write_items)(mg_writer *w, PyObject *obj))
{
    int open = w->open;
    if (mg_put_byte(w->out, op) < 0)
        return -1;
    if (shared) {
        if (mg_memo_put(w, obj) < 0)
            return -1;
        w->open = 0;
    }
    int rc = write_items(w, obj);
    w->open = open;
    return rc;
}

int mg_write_list(mg_writer *w, PyObject *obj, int shared)
{
    return write_mutable(w, obj, shared, OP_EMPTY_LIST, write_all_items);
}

/* PyDict_Next with new references. */
static inline int dict_next(PyObject *dict, Py_ssize_t *pos, PyObject **key, PyObject **value)
{
    int more;
#ifdef Py_GIL_DISABLED
    Py_BEGIN_CRITICAL_SECTION(dict);
#endif
    more = PyDict_Next(dict, pos, key, value);
    if (more) {
        Py_INCREF(*key);
        Py_INCREF(*value);
    }
#ifdef Py_GIL_DISABLED
    Py_END_CRITICAL_SECTION();
#endif
    return more;
}

int mg_write_dict_items(mg_writer *w, PyObject *dict)
{
    Py_ssize_t size = PyDict_Size(dict), pos = 0, count = 0;
    PyObject *key, *value;

    while (dict_next(dict, &pos, &key, &value)) {
        int rc = 0;
        if (size > 1 && count % BATCH == 0)
            rc = mg_put_byte(w->out, OP_MARK);
        if (rc == 0)
            rc = w->value(w, key, 2);
        if (rc == 0)
            rc = w->value(w, value, 2);
        Py_DECREF(key);
        Py_DECREF(value);
        if (rc != 0)
            return rc;
        count++;
        if (size > 1 && (count % BATCH == 0 || count == size))
            rc = mg_put_byte(w->out, OP_SETITEMS);
        else if (size == 1)
            rc = mg_put_byte(w->out, OP_SETITEM);
        if (rc != 0)
            return rc;
        if (PyDict_Size(dict) != size)
            break;
    }
    if (count != size || PyDict_Size(dict) != size) {
        PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
        return -1;
    }
    return 0;
}

int mg_write_dict(mg_writer *w, PyObject *obj, int shared)
{
    return write_mutable(w, obj, shared, OP_EMPTY_DICT, mg_write_dict_items);
}
