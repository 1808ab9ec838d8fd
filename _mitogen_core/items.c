#include "items.h"

#include "counterpart.h"
#include "later.h"
#include "message_object.h"

PyObject *mg_item_object(mg_state *st, mg_item item, PyObject *router)
{
    PyObject *obj;
    switch (item.kind) {
    case MG_ITEM_OBJECT: return item.ptr;
    case MG_ITEM_FRAME: return mg_message_from_frame(st, item.ptr, router);
    default:
        obj = mg_latch_object(item.ptr);
        mg_token_end(item.ptr);
        return obj;
    }
}

void mg_drop_item(mg_item item)
{
    switch (item.kind) {
    case MG_ITEM_OBJECT: mg_decref_anywhere(item.ptr); break;
    case MG_ITEM_FRAME: mg_frame_unref(item.ptr); break;
    case MG_ITEM_TOKEN: mg_token_end(item.ptr); break;
    default: break;
    }
}

struct visit {
    visitproc visit;
    void *arg;
};

static int visit_item(mg_item item, void *arg)
{
    const struct visit *v = arg;
    return item.kind == MG_ITEM_OBJECT ? v->visit(item.ptr, v->arg) : 0;
}

int mg_visit_items(mg_latch *l, visitproc visit, void *arg)
{
    struct visit v = {visit, arg};
    return l ? mg_latch_visit(l, visit_item, &v) : 0;
}

void mg_clear_items(mg_latch *l)
{
    mg_item item;
    while (l && mg_latch_try(l, &item) == MG_OK)
        if (item.kind == MG_ITEM_OBJECT)
            Py_DECREF((PyObject *) item.ptr);
        else
            mg_drop_item(item);
}
