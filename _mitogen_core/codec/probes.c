/* A sender that knows the hashes of numbers can choose keys so that a dictionary probes many
 * taken places on its way to each, with equal hashes or without. Reading would take quadratic
 * time. So the reader follows the probes that the dictionary will make (Objects/dictobject.c has
 * them; they are the same in all versions), in a map with one bit for each place of the table.
 * Each place on the way costs a point of a budget, and so does each item of a tuple that is
 * hashed. The budget is little more than the number of opcodes of the message. Honest keys need
 * a dozen places at most, on the average: addresses of pages, for example, which are multiples
 * of a large power of 2.
 *
 * One map is kept. If a message goes back and forth between large dictionaries, the map is made
 * anew each time, which costs points as well. */
#include "codec/probes.h"

enum { PERTURB_SHIFT = 5 };

/* The budget of a reader: how many places of a table it may look at. It has some for each
 * opcode, and FREE ones to begin with, which take a few milliseconds. */
enum { PER_OPCODE = 64, FREE = 1 << 18 };

static int pay(mg_unpickler *up)
{
    if (++up->spent > (size_t) PER_OPCODE * up->ops + FREE)
        return mg_malformed(up, "the keys of a dictionary collide, or take too long to hash");
    return 0;
}

/* Pays for the hash of a tuple. A tuple may hold another one many times, and that the next. The
 * function recurses no deeper than tuples may nest. */
static int pay_for_tuple(mg_unpickler *up, PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        if (pay(up) < 0 || (PyTuple_Check(item) && pay_for_tuple(up, item) < 0))
            return -1;
    }
    return 0;
}

/* How many keys a table of that size takes before it grows. */
static size_t usable(unsigned bits)
{
    return ((size_t) 2 << bits) / 3;
}

/* Marks the place where the key will be. */
static int note(mg_unpickler *up, PyObject *key)
{
    mg_probes *probes = &up->probes;
    if (PyTuple_Check(key) && pay_for_tuple(up, key) < 0)
        return -1;
    Py_hash_t hash = PyObject_Hash(key);
    if (hash == -1)
        return -1;
    size_t mask = ((size_t) 1 << probes->bits) - 1, perturb = (size_t) hash, at = perturb & mask;
    while (probes->taken[at >> 6] & UINT64_C(1) << (at & 63)) {
        if (pay(up) < 0)
            return -1;
        perturb >>= PERTURB_SHIFT;
        at = (at * 5 + perturb + 1) & mask;
    }
    probes->taken[at >> 6] |= UINT64_C(1) << (at & 63);
    return 0;
}

static int needs_note(const mg_unpickler *up, PyObject *key)
{
    return !up->codec->text_hash_is_secret || !(PyUnicode_Check(key) || PyBytes_Check(key));
}

void mg_probes_clear(mg_probes *probes)
{
    PyMem_Free(probes->taken);
    probes->taken = NULL;
    Py_CLEAR(probes->dict);
}

/* Whether a key is a number below the size of the table. As long as that is so of all keys, each
 * has the place of that number for itself, and no map is needed: they are indices, most likely. */
static int is_index(const mg_unpickler *up, PyObject *key)
{
    if (!PyLong_CheckExact(key))
        return 0;
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(key, &overflow);
    return !overflow && value >= 0 && (unsigned long long) value >> up->probes.bits == 0;
}

static int holds_indices(mg_unpickler *up, PyObject *dict)
{
    PyObject *key;
    for (Py_ssize_t pos = 0; PyDict_Next(dict, &pos, &key, NULL);) {
        if (!is_index(up, key))
            return 0;
    }
    return 1;
}

/* Makes the map of the dictionary's keys, with room for one more. */
static int survey(mg_unpickler *up, PyObject *dict)
{
    mg_probes *probes = &up->probes;
    PyMem_Free(probes->taken);
    probes->taken = PyMem_Calloc((size_t) 1 << (probes->bits - 6), sizeof *probes->taken);
    if (probes->taken == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *key;
    for (Py_ssize_t pos = 0; PyDict_Next(dict, &pos, &key, NULL);) {
        if (pay(up) < 0 || (needs_note(up, key) && note(up, key) < 0))
            return -1;
    }
    return 0;
}

/* Turns to another dictionary. */
static int begin(mg_unpickler *up, PyObject *dict)
{
    mg_probes *probes = &up->probes;
    mg_probes_clear(probes);
    probes->bits = 6; /* a whole word */
    while (usable(probes->bits) <= (size_t) PyDict_GET_SIZE(dict))
        probes->bits++;
    Py_INCREF(dict);
    probes->dict = dict;
    for (Py_ssize_t i = 0; i < PyDict_GET_SIZE(dict); i++) {
        if (pay(up) < 0)
            return -1;
    }
    return holds_indices(up, dict) ? 0 : survey(up, dict);
}

int mg_probes_check(mg_unpickler *up, PyObject *dict, PyObject *key)
{
    if (PyDict_GET_SIZE(dict) < MG_CODEC_FREE_KEYS) /* such a key is a tuple, whose hash alone may take long */
        return PyTuple_Check(key) ? pay_for_tuple(up, key) : 0;
    mg_probes *probes = &up->probes;
    if (probes->dict != dict && begin(up, dict) < 0)
        return -1;
    int grew = usable(probes->bits) <= (size_t) PyDict_GET_SIZE(dict);
    while (usable(probes->bits) <= (size_t) PyDict_GET_SIZE(dict))
        probes->bits++;
    if (probes->taken == NULL && is_index(up, key))
        return 0;
    if ((grew || probes->taken == NULL) && survey(up, dict) < 0)
        return -1;
    return note(up, key);
}
