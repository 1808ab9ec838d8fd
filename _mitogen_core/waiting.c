#include "waiting.h"

#include "arguments.h"
#include "base/clock.h"
#include "errors.h"
#include "gil.h"
#include "later.h"

/* A signal that comes between the look for one and the sleep does not interrupt the sleep. So a
 * wait looks again when it has lasted that long, then when it has lasted twice as long, and so
 * on. */
#define FIRST_LOOK (MG_SECOND / 20)

int mg_wait_item(mg_state *st, mg_latch *l, mg_loop *loop, int64_t deadline, int block, mg_item *item)
{
    mg_run_later();
    mg_err err = mg_latch_try(l, item);
    if (err == MG_EAGAIN && block) {
        /* Not on the stack: when the interpreter ends, a daemon thread ends as it asks for the
         * GIL, and its sleeper is then still in the queue. */
        mg_sleeper *s = PyMem_RawMalloc(sizeof *s);
        err = s ? mg_latch_join(l, s, item) : MG_ENOMEM;
        if (err == MG_EAGAIN) {
            int64_t began = mg_now(), look = began + FIRST_LOOK;
            do {
                /* before the first sleep too: the interpreter has not looked since we were
                 * called, which may be a while ago */
                if (PyErr_CheckSignals()) {
                    /* The wait is over. An item that came meanwhile belongs to the next sleeper. */
                    if (mg_latch_leave(l, s, item) == MG_OK)
                        mg_latch_unget(l, *item);
                    PyMem_RawFree(s);
                    return -1;
                }
                int64_t until = look < deadline ? look : deadline;
                MG_WITHOUT_GIL(err = loop ? mg_loop_wait(loop, s, until) : mg_latch_sleep(s, until));
                if (err == MG_ETIMEDOUT && until < deadline) {
                    look += look - began;
                    err = MG_EINTR;
                }
            } while (err == MG_EINTR);
            mg_sleeper_learn(s);
            err = mg_latch_leave(l, s, item);
        }
        PyMem_RawFree(s);
        mg_run_later();
    }
    if (err == MG_OK || err == MG_ECLOSED)
        return err == MG_ECLOSED;
    mg_raise(st, err);
    return -1;
}

mg_err mg_push_item(mg_latch *l, mg_item item, mg_woken *woken)
{
    mg_waiter *owed;
    mg_err err = mg_latch_push_owing(l, item, woken, &owed);
    if (owed) {
        MG_WITHOUT_GIL(mg_waiter_unpark(owed));
    }
    return err;
}

PyObject *mg_sleepers(mg_latch *l)
{
    mg_asleep asleep[64]; /* more than a person wants to read */
    size_t n = mg_latch_sleepers(l, asleep, 64);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < n && i < 64; i++) {
        PyObject *age = mg_age(asleep[i].since);
        PyObject *pair = age ? Py_BuildValue("(KO)", (unsigned long long) asleep[i].thread, age) : NULL;
        if (!pair || PyList_Append(list, pair))
            Py_CLEAR(list);
        Py_XDECREF(age);
        Py_XDECREF(pair);
    }
    return list;
}
