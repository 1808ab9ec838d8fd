/* Gives a router random frames, routes and handlers, and compares what comes out of it with what
 * the rules say: a second telling of them, in plain arrays (rules, below).
 *
 * Input: a byte of flags, then operations: a byte each, and what it takes. No thread and no
 * waiting: frames are fed to the streams by hand, and what leaves is read at the other ends of
 * the socket pairs. */
#include "test/test_net.h"

enum { WITH_PARENT = 1, UNIDIRECTIONAL = 2, SMALL_MESSAGES = 4 };
enum { OWN = 10, PARENT = 3, GRANDPARENT = 0, LIMIT = 6 };
enum { N_STREAMS = 4, N_IDS = 12, N_HANDLES = 8, MAX_OPS = 400 };

/* Few, so that they meet; the last ones are the edges. */
static const uint32_t ids[N_IDS] = {OWN, PARENT, GRANDPARENT, 11,         12,         13,
                                    14,  20,     999,         0x7fffffff, 0x80000000, 0xffffffff};
static const uint32_t handles[N_HANDLES] = {100, 101, 999, 1000, 1001, 1002, 0x80000000, 0xffffffff};
static const uint32_t remotes[N_STREAMS] = {PARENT, 11, 12, 0xffffffff};

/* The state that the rules keep. Streams are numbers, -1 is none. */
struct rule_handler {
    int there, persist, policy, python;
    int64_t respondent;
    mg_latch *latch;
};

struct world {
    struct node node;
    mg_stream *streams[N_STREAMS];
    int fds[N_STREAMS];
    int route[N_IDS];
    int64_t stamp[N_STREAMS];
    int privileged[N_STREAMS];
    int hooked[N_STREAMS];
    struct rule_handler handlers[N_HANDLES];
    int with_parent, unidirectional;
    uint64_t limit;
};

/* One thing that is to come out. */
enum { TO_STREAM, TO_HANDLER, REFUSAL };
struct out {
    int kind, where;
    mg_hdr hdr;
    mg_reason reason;
    char text[64];
};

static struct out wanted[16];
static int n_wanted;

struct source {
    const uint8_t *ptr;
    size_t len;
};

static unsigned take(struct source *s)
{
    if (!s->len)
        return 0;
    s->len--;
    return *s->ptr++;
}

static int index_of(const uint32_t *list, int n, uint32_t value)
{
    int i;

    for (i = 0; i < n && list[i] != value; i++)
        ;
    return i < n ? i : -1;
}

/* --- the rules of docs/protocol.rst about routing and dead messages, told again --- */

static void decide(struct world *w, mg_hdr hdr, const char *text, int in);

static struct out *want(int kind, int where, mg_hdr hdr, const char *text)
{
    CHECK(n_wanted < 16);
    struct out *o = &wanted[n_wanted++];
    *o = (struct out) {.kind = kind, .where = where, .hdr = hdr};
    strcpy(o->text, text);
    return o;
}

static int route_of(struct world *w, uint32_t id)
{
    int i = index_of(ids, N_IDS, id);

    return i < 0 ? -1 : w->route[i];
}

static int parent_stream(struct world *w)
{
    return w->with_parent ? route_of(w, PARENT) : -1;
}

static int comes_from(struct world *w, uint32_t id)
{
    int s = route_of(w, id);

    return s < 0 ? parent_stream(w) : s;
}

static void rule_dead(struct world *w, mg_hdr hdr, mg_reason reason, int unreachable, uint64_t a, uint64_t b,
                      uint64_t c)
{
    mg_hdr dead = {.enc = MG_ENC_MGC, .src_id = OWN, .auth_id = OWN, .reply_to = MG_IS_DEAD};
    char text[64];

    want(REFUSAL, 0, hdr, "")->reason = reason;
    if (hdr.reply_to && hdr.reply_to != MG_IS_DEAD) {
        dead.dst_id = hdr.src_id;
        dead.handle = hdr.reply_to;
    } else if (!unreachable) {
        dead.dst_id = hdr.dst_id;
        dead.handle = hdr.handle;
        dead.src_id = hdr.src_id;
        dead.auth_id = hdr.auth_id;
    } else
        return;
    snprintf(text, sizeof text, "%c %llu %llu %llu", 'A' + (int) reason, (unsigned long long) a, (unsigned long long) b,
             (unsigned long long) c);
    if (strlen(text) > w->limit)
        text[w->limit] = 0;
    decide(w, dead, text, -1);
}

static int has_authority(struct world *w, uint32_t id)
{
    return id == OWN || (w->with_parent && (id == PARENT || id == GRANDPARENT));
}

/* Bad news of a respondent comes from here, or from the neighbour on the way there, or from
 * above. */
static int may_report(struct world *w, mg_hdr hdr, struct rule_handler *h, int in)
{
    int way = comes_from(w, (uint32_t) h->respondent);

    return hdr.reply_to == MG_IS_DEAD &&
           (in < 0 || (way == in && (hdr.src_id == remotes[in] || hdr.src_id == 0 || has_authority(w, hdr.src_id))));
}

/* With its own authority, or with the one that it is lent. */
static int is_neighbour(struct world *w, mg_hdr hdr, int in)
{
    return in >= 0 && remotes[in] == hdr.src_id && (hdr.auth_id == hdr.src_id || w->stamp[in] == (int64_t) hdr.auth_id);
}

static void rule_deliver(struct world *w, mg_hdr hdr, const char *text, int in)
{
    int i = index_of(handles, N_HANDLES, hdr.handle);
    struct rule_handler *h = i < 0 ? NULL : &w->handlers[i];

    if (!h || !h->there)
        rule_dead(w, hdr, MG_REASON_INVALID_HANDLE, 1, 0, 0, 0);
    else if (h->respondent >= 0 && hdr.src_id != h->respondent && !may_report(w, hdr, h, in))
        rule_dead(w, hdr, MG_REASON_MISMATCH, 1, 0, 0, 0);
    else if ((h->policy == MG_POLICY_PARENT && !has_authority(w, hdr.auth_id)) ||
             (h->policy == MG_POLICY_NEIGHBOUR && !is_neighbour(w, hdr, in)))
        rule_dead(w, hdr, MG_REASON_REFUSED, 1, 0, 0, 0);
    else {
        if (!h->persist)
            h->there = 0;
        want(TO_HANDLER, i, hdr, text);
    }
}

static void decide(struct world *w, mg_hdr hdr, const char *text, int in)
{
    int out;

    if (hdr.dst_id == OWN) {
        rule_deliver(w, hdr, text, in);
        return;
    }
    out = route_of(w, hdr.dst_id);
    if (out < 0 && !(in >= 0 && comes_from(w, hdr.src_id) == parent_stream(w)))
        out = parent_stream(w);
    if (out < 0)
        rule_dead(w, hdr, MG_REASON_NO_ROUTE, 1, hdr.dst_id, OWN, 0);
    else if (in >= 0 && w->unidirectional && !w->privileged[in] && !w->privileged[out])
        rule_dead(w, hdr, MG_REASON_UNIDIRECTIONAL, 1, remotes[in], remotes[out], OWN);
    else
        want(TO_STREAM, out, hdr, text);
}

/* A sender may claim the authority of nobody, and the parent any, for what it passes down. */
static int is_lowered(struct world *w, mg_hdr hdr, int in)
{
    return hdr.auth_id != hdr.src_id && (hdr.auth_id == MG_NOBODY || in == parent_stream(w));
}

/* A sender that is stamped with our authority may speak with the one of a context below us. */
static int is_humble(struct world *w, mg_hdr hdr, int in)
{
    int way = comes_from(w, hdr.auth_id);
    return w->stamp[in] == OWN && hdr.auth_id != hdr.src_id && way >= 0 && way != in && way != parent_stream(w);
}

static void rule_ingress(struct world *w, mg_hdr hdr, const char *text, int in)
{
    if (comes_from(w, hdr.auth_id) != in && !is_lowered(w, hdr, in) && !is_humble(w, hdr, in))
        want(REFUSAL, 0, hdr, "")->reason = MG_REASON_BAD_AUTH;
    else if (hdr.src_id != hdr.auth_id && comes_from(w, hdr.src_id) != in)
        want(REFUSAL, 0, hdr, "")->reason = MG_REASON_BAD_SRC;
    else {
        if (w->stamp[in] >= 0 && hdr.auth_id != MG_NOBODY && !is_humble(w, hdr, in))
            hdr.auth_id = (uint32_t) w->stamp[in];
        decide(w, hdr, text, in);
    }
}

static void rule_local(struct world *w, mg_hdr hdr, const char *text)
{
    if (hdr.len > w->limit)
        rule_dead(w, hdr, MG_REASON_TOO_LARGE, 0, w->limit, 0, 0);
    else
        decide(w, hdr, text, -1);
}

/* --- the comparison --- */

static int same(const mg_hdr *a, const mg_hdr *b)
{
    return a->enc == b->enc && a->dst_id == b->dst_id && a->src_id == b->src_id && a->auth_id == b->auth_id &&
           a->handle == b->handle && a->reply_to == b->reply_to;
}

static void check_out(struct world *w, const struct out *o, size_t *event)
{
    mg_hdr hdr;
    uint8_t *payload;
    struct seen *e;
    mg_item item;

    switch (o->kind) {
    case TO_STREAM:
        CHECK(peer_has_input(w->fds[o->where]) && peer_recv(w->fds[o->where], &hdr, &payload));
        CHECK(same(&hdr, &o->hdr) && !strcmp((char *) payload, o->text));
        free(payload);
        break;
    case TO_HANDLER:
        if (!w->handlers[o->where].python) {
            CHECK(mg_latch_try(w->handlers[o->where].latch, &item) == MG_OK && item.kind == MG_ITEM_FRAME);
            mg_frame *f = item.ptr;
            CHECK(same(&f->hdr, &o->hdr) && f->hdr.len == strlen(o->text));
            CHECK(!memcmp(mg_frame_payload(f), o->text, f->hdr.len));
            mg_frame_unref(f);
            break;
        }
        /* fall through */
    default:
        CHECK(*event < w->node.n_seen);
        e = &w->node.seen[(*event)++];
        CHECK(e->kind == (o->kind == REFUSAL ? MG_EV_REFUSED : MG_EV_FRAME) && same(&e->hdr, &o->hdr));
        CHECK(e->kind != MG_EV_REFUSED || (e->reason == o->reason && !e->n));
    }
}

/* Whether all expected frames have come out, in order, and no others. */
static void check_all(struct world *w)
{
    size_t event = 0, hooks = 0, i;
    mg_item item;
    int k;

    node_take_events(&w->node);
    for (i = 0; i < w->node.n_seen; i++)
        if (w->node.seen[i].kind == MG_EV_HOOK)
            hooks++;
        else
            w->node.seen[i - hooks] = w->node.seen[i];
    w->node.n_seen -= hooks;
    for (k = 0; k < n_wanted; k++)
        check_out(w, &wanted[k], &event);
    CHECK(event == w->node.n_seen);
    for (k = 0; k < N_STREAMS; k++)
        CHECK(!peer_has_input(w->fds[k]));
    for (k = 0; k < N_HANDLES; k++)
        if (w->handlers[k].latch)
            CHECK(mg_latch_try(w->handlers[k].latch, &item) == MG_EAGAIN);
    w->node.n_seen = 0;
    n_wanted = 0;
}

/* --- operations --- */

static mg_hdr take_header(struct source *s)
{
    unsigned shape = take(s);
    mg_hdr hdr = {.enc = MG_ENC_MGC};

    hdr.dst_id = ids[take(s) % N_IDS];
    hdr.src_id = ids[take(s) % N_IDS];
    hdr.auth_id = shape & 1 ? ids[take(s) % N_IDS] : hdr.src_id;
    hdr.handle = handles[take(s) % N_HANDLES];
    hdr.reply_to = shape & 2 ? handles[(shape >> 3) % N_HANDLES] : 0;
    if (shape & 4)
        hdr.enc = MG_ENC_PKL;
    return hdr;
}

static void op_frame(struct world *w, struct source *s, unsigned op)
{
    int in = (op >> 3) % N_STREAMS;
    mg_hdr hdr = take_header(s);
    uint8_t wire[MG_HEADER_LEN + 4];

    hdr.len = op >> 6;
    mg_hdr_encode(wire, &hdr);
    memcpy(wire + MG_HEADER_LEN, "xyz", 4);
    rule_ingress(w, hdr, &"xyz"[3 - hdr.len], in);
    memcpy(wire + MG_HEADER_LEN, &"xyz"[3 - hdr.len], hdr.len);
    CHECK(mg_stream_feed(w->streams[in], wire, MG_HEADER_LEN + hdr.len) == MG_OK);
    node_take_events(&w->node);
    if (w->streams[in]->in_python) {
        /* A frame was in Python: the stream goes on when the loop next looks. */
        mg_loop_release(w->node.loop);
        test_run_ops(w->node.loop);
        mg_loop_acquire(w->node.loop);
    }
    CHECK(!w->streams[in]->in_python);
}

static void op_local(struct world *w, struct source *s, unsigned op)
{
    mg_hdr hdr = take_header(s);

    hdr.len = (op >> 3) % 8;
    rule_local(w, hdr, &"abcdefg"[7 - hdr.len]);
    mg_router_route(w->node.router, test_frame(hdr, &"abcdefg"[7 - hdr.len], hdr.len), NULL);
}

static void op_route(struct world *w, struct source *s, unsigned op)
{
    int id = (int) (take(s) % N_IDS), stream = (op >> 3) % N_STREAMS;

    if (op & 0x80) {
        CHECK(mg_router_del_route(w->node.router, ids[id]) == (w->route[id] >= 0));
        w->route[id] = -1;
    } else {
        CHECK(mg_router_put_route(w->node.router, ids[id], w->streams[stream]) == MG_OK);
        w->route[id] = stream;
    }
}

static void op_handler(struct world *w, struct source *s, unsigned op)
{
    int i = (op >> 3) % N_HANDLES;
    unsigned how = take(s), who = take(s);
    struct rule_handler *r = &w->handlers[i];
    mg_handler *h;

    if (how & 0x80) {
        CHECK((mg_router_del_handler(w->node.router, handles[i]) == MG_OK) == r->there);
        r->there = 0;
        return;
    }
    mg_handler_spec spec = {.persist = how & 1,
                            .policy = (how >> 1) % 3,
                            .respondent = how & 8 ? (int64_t) ids[who % N_IDS] : -1,
                            .latch = how & 16 ? mg_latch_new(drop_item) : NULL};
    h = mg_handler_new(&spec);
    mg_err err = mg_router_add_handler(w->node.router, h, handles[i], how & 32);
    CHECK(err == (r->there && !(how & 32) ? MG_EEXIST : MG_OK));
    if (!err) {
        mg_latch_unref(r->latch);
        *r = (struct rule_handler) {1, spec.persist, (int) spec.policy, !spec.latch, spec.respondent, spec.latch};
    } else
        mg_latch_unref(spec.latch);
    mg_handler_unref(h);
}

static void op_stream(struct world *w, struct source *s, unsigned op)
{
    int i = (op >> 3) % N_STREAMS;
    unsigned how = take(s);

    w->privileged[i] = how & 1;
    w->stamp[i] = how & 2 ? (int64_t) ids[(how >> 3) % N_IDS] : -1;
    w->hooked[i] = (how & 4) != 0;
    atomic_store(&w->streams[i]->peer.privileged, w->privileged[i]);
    atomic_store(&w->streams[i]->peer.auth_stamp, w->stamp[i]);
    atomic_store(&w->streams[i]->peer.hooked, w->hooked[i]);
}

static void make_world(struct world *w, unsigned flags)
{
    static const uint32_t parents[] = {PARENT, GRANDPARENT};
    int i, fds[2];
    char text[] = "A %d %r %d";

    memset(w, 0, sizeof *w);
    node_make(&w->node, OWN, -1);
    w->with_parent = flags & WITH_PARENT;
    if (w->with_parent)
        CHECK(mg_router_set_identity(w->node.router, OWN, PARENT, parents, 2) == MG_OK);
    w->unidirectional = (flags & UNIDIRECTIONAL) != 0;
    mg_router_set_unidirectional(w->node.router, w->unidirectional);
    w->limit = flags & SMALL_MESSAGES ? LIMIT : 1000;
    atomic_store(&w->node.router->sink.max_size, w->limit);
    for (i = 0; i < MG_N_REASONS; i++) {
        text[0] = (char) ('A' + i);
        CHECK(mg_router_set_text(w->node.router, (mg_reason) i, text) == MG_OK);
    }
    for (i = 0; i < N_IDS; i++)
        w->route[i] = -1;
    for (i = 0; i < N_STREAMS; i++) {
        test_pair(fds, 0);
        w->streams[i] = node_connect(&w->node, remotes[i], fds[0], 0);
        w->fds[i] = fds[1];
        w->stamp[i] = -1;
        w->route[index_of(ids, N_IDS, remotes[i])] = i;
    }
    mg_loop_acquire(w->node.loop);
}

static void end_world(struct world *w)
{
    mg_entry *list;
    size_t n;
    int i;

    mg_loop_release(w->node.loop);
    for (i = 0; i < N_IDS; i++)
        mg_router_del_route(w->node.router, ids[i]);
    for (i = 0; i < N_STREAMS; i++) {
        node_disconnect(&w->node, w->streams[i]);
        close(w->fds[i]);
    }
    list = mg_router_take_handlers(w->node.router, -1, &n);
    while (n)
        mg_handler_unref(list[--n].value);
    mg_free(list);
    for (i = 0; i < N_HANDLES; i++)
        mg_latch_unref(w->handlers[i].latch);
    node_stop(&w->node);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    struct source s = {input, len};
    struct world w;
    unsigned op;
    int i;

    make_world(&w, take(&s));
    for (i = 0; s.len && i < MAX_OPS; i++) {
        op = take(&s);
        switch (op & 7) {
        case 0: op_route(&w, &s, op); break;
        case 1: op_handler(&w, &s, op); break;
        case 2: op_stream(&w, &s, op); break;
        case 3: op_local(&w, &s, op); break;
        default: op_frame(&w, &s, op); break;
        }
        check_all(&w);
    }
    end_world(&w);
    return 0;
}
