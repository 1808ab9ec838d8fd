/* Faults of the system in a read, a write or an allocation at any point, and what becomes of the
 * messages. The linker puts the functions below in the place of the system calls (--wrap, see
 * the Makefile). */
#include "test/bytes.h"
#include "test/test_net.h"

#include "base/block.h"

#include <sys/uio.h>

/* --- reads and writes that go wrong --- */

enum fault { PLAIN, ONE_BYTE, HALF, INTERRUPTED, NOT_NOW, BROKEN };

#define MAX_FD 256

static struct {
    _Atomic int faulty[MAX_FD]; /* descriptors that this is about */
    _Atomic long calls; /* on them, so far */
    long at; /* which of these calls goes wrong; 0: none */
    enum fault what;
    int error; /* for BROKEN */
    unsigned seed; /* not 0: each call is a toss */
} faults;

static void faults_on(int fd)
{
    CHECK(fd < MAX_FD);
    atomic_store(&faults.faulty[fd], 1);
}

static void faults_arm(long at, enum fault what, int error, unsigned seed)
{
    atomic_store(&faults.calls, 0);
    faults.at = at;
    faults.what = what;
    faults.error = error;
    faults.seed = seed;
}

static void faults_end(void)
{
    for (int fd = 0; fd < MAX_FD; fd++)
        atomic_store(&faults.faulty[fd], 0);
    faults_arm(0, PLAIN, 0, 0);
}

/* Returns how many of size bytes the call may have, or -1 with errno. */
static ssize_t fault_of(int fd, size_t size)
{
    static const enum fault tosses[] = {PLAIN, ONE_BYTE, HALF, INTERRUPTED, NOT_NOW, HALF, PLAIN, HALF};
    enum fault what = PLAIN;

    if (fd >= 0 && fd < MAX_FD && atomic_load(&faults.faulty[fd])) {
        long n = atomic_fetch_add(&faults.calls, 1) + 1;
        if (faults.seed) {
            unsigned state = faults.seed + (unsigned) n * 2654435761u;
            what = tosses[test_random(&state) % 8];
        } else if (n == faults.at)
            what = faults.what;
    }
    switch (what) {
    case ONE_BYTE: return size > 1 ? 1 : (ssize_t) size;
    case HALF: return (ssize_t) ((size + 1) / 2);
    case INTERRUPTED: errno = EINTR; return -1;
    case NOT_NOW: errno = EAGAIN; return -1;
    case BROKEN: errno = faults.error; return -1;
    default: return (ssize_t) size;
    }
}

static size_t size_of(const struct iovec *iov, int n)
{
    size_t size = 0;

    for (int i = 0; i < n; i++)
        size += iov[i].iov_len;
    return size;
}

/* Copies as many entries as make up size bytes; returns how many entries. */
static int cut(struct iovec *out, const struct iovec *iov, int n, size_t size)
{
    int i = 0;

    for (; i < n && size; i++) {
        out[i] = iov[i];
        if (out[i].iov_len > size)
            out[i].iov_len = size;
        size -= out[i].iov_len;
    }
    return i;
}

#define MAX_IOV 1024

ssize_t __real_read(int fd, void *ptr, size_t size);
ssize_t __real_readv(int fd, const struct iovec *iov, int n);
ssize_t __real_writev(int fd, const struct iovec *iov, int n);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_read(int fd, void *ptr, size_t size);
ssize_t __wrap_readv(int fd, const struct iovec *iov, int n);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int n);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);

ssize_t __wrap_read(int fd, void *ptr, size_t size)
{
    ssize_t may = fault_of(fd, size);

    return may < 0 ? may : __real_read(fd, ptr, (size_t) may);
}

ssize_t __wrap_readv(int fd, const struct iovec *iov, int n)
{
    struct iovec copy[MAX_IOV];
    ssize_t may = fault_of(fd, size_of(iov, n));

    return may < 0 ? may : __real_readv(fd, copy, cut(copy, iov, n, (size_t) may));
}

ssize_t __wrap_writev(int fd, const struct iovec *iov, int n)
{
    struct iovec copy[MAX_IOV];
    ssize_t may = fault_of(fd, size_of(iov, n));

    return may < 0 ? may : __real_writev(fd, copy, cut(copy, iov, n, (size_t) may));
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct iovec copy[MAX_IOV];
    struct msghdr cut_msg = *msg;
    ssize_t may = fault_of(fd, size_of(msg->msg_iov, (int) msg->msg_iovlen));

    if (may < 0)
        return may;
    cut_msg.msg_iov = copy;
    cut_msg.msg_iovlen = (unsigned) cut(copy, msg->msg_iov, (int) msg->msg_iovlen, (size_t) may);
    return __real_sendmsg(fd, &cut_msg, flags);
}

/* --- a small world in one thread: a router, one neighbour by a socket, one by two pipes --- */

#define LATCH  101
#define PYTHON 102
#define NOBODY 103
#define REPLY  1000

enum { US, SOCKET, PIPES, N_PLACES };

/* The messages that are sent, with sender and recipient. The payload tells which one it is. */
static const struct {
    int from, to;
    uint32_t handle;
    size_t len;
} what[] = {
    {US, SOCKET, 5, 10},        {US, PIPES, 5, 90000},        {SOCKET, US, LATCH, 10},   {SOCKET, US, LATCH, 50000},
    {PIPES, SOCKET, 5, 300},    {SOCKET, PIPES, 5, 100},      {SOCKET, US, NOBODY, 8},   {SOCKET, US, PYTHON, 10},
    {SOCKET, PIPES, 5, 200000}, {PIPES, SOCKET, 5, 70000},    {PIPES, US, LATCH, 20},    {SOCKET, US, LATCH, 8},
    {SOCKET, US, LATCH, 9},     {US, SOCKET, 5, 40000},       {SOCKET, US, PYTHON, 600}, {SOCKET, US, LATCH, 3000},
    {PIPES, US, NOBODY, 8},     {SOCKET, US, NOBODY, 200000},
};

#define N_WHAT ((int) (sizeof what / sizeof *what))

struct place {
    int rfd, wfd; /* the neighbour's */
    int engine_rfd, engine_wfd;
    mg_stream *stream;
    uint8_t *out;
    size_t out_len, out_at;
    uint8_t *in;
    size_t in_len;
};

struct world {
    struct node node;
    mg_latch *latch;
    struct place places[N_PLACES];
    int arrived[N_WHAT];
    size_t n_events; /* that were looked at */
};

#define IN_SIZE (1 << 20)

static void fill_payload(uint8_t *payload, int which)
{
    uint32_t tag = (uint32_t) which;

    memcpy(payload, &tag, 4);
    test_fill(payload + 4, what[which].len - 4, tag);
}

static void check_payload(const uint8_t *payload, size_t len, int which)
{
    CHECK(len == what[which].len);
    CHECK(test_filled(payload + 4, len - 4, (unsigned) which));
}

static mg_hdr hdr_of(int which)
{
    return (mg_hdr) {.enc = MG_ENC_BIN,
                     .dst_id = (uint32_t) what[which].to,
                     .src_id = (uint32_t) what[which].from,
                     .auth_id = (uint32_t) what[which].from,
                     .handle = what[which].handle,
                     .reply_to = what[which].handle == NOBODY ? REPLY : 0,
                     .len = (uint32_t) what[which].len};
}

/* Each message before it, on the same way and to the same kind of handler, must be there
 * already: nothing is overtaken, and nothing is missing in between. */
static void note_arrival(struct world *w, uint32_t which)
{
    CHECK(which < (uint32_t) N_WHAT && !w->arrived[which]);
    for (uint32_t i = 0; i < which; i++)
        if (what[i].from == what[which].from && what[i].to == what[which].to && what[i].handle == what[which].handle)
            CHECK(w->arrived[i]);
    w->arrived[which] = 1;
}

static void world_make(struct world *w)
{
    int fds[2], down[2], up[2];

    memset(w, 0, sizeof *w);
    node_make(&w->node, US, -1);
    w->latch = node_listen(&w->node, LATCH);
    node_handle_in_python(&w->node, PYTHON);
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds) && !pipe(down) && !pipe(up));
    w->places[SOCKET] = (struct place) {.rfd = fds[1], .wfd = fds[1], .engine_rfd = fds[0], .engine_wfd = fds[0]};
    w->places[PIPES] = (struct place) {.rfd = down[0], .wfd = up[1], .engine_rfd = up[0], .engine_wfd = down[1]};
    for (int i = SOCKET; i < N_PLACES; i++) {
        struct place *p = &w->places[i];
        int all[] = {p->rfd, p->wfd, p->engine_rfd, p->engine_wfd};
        for (size_t k = 0; k < 4; k++)
            CHECK(!fcntl(all[k], F_SETFL, fcntl(all[k], F_GETFL) | O_NONBLOCK));
        p->in = malloc(IN_SIZE);
        p->out = malloc(IN_SIZE);
        for (int which = 0; which < N_WHAT; which++) {
            mg_hdr h = hdr_of(which);
            if (what[which].from != i)
                continue;
            mg_hdr_encode(p->out + p->out_len, &h);
            fill_payload(p->out + p->out_len + MG_HEADER_LEN, which);
            p->out_len += MG_HEADER_LEN + what[which].len;
        }
        p->stream = mg_router_new_stream(w->node.router, (uint32_t) i, p->engine_rfd, p->engine_wfd);
        CHECK(p->stream && mg_router_put_route(w->node.router, (uint32_t) i, p->stream) == MG_OK);
        mg_loop_acquire(w->node.loop);
        CHECK(mg_stream_start(p->stream) == MG_OK);
        mg_loop_release(w->node.loop);
        faults_on(p->engine_rfd);
        faults_on(p->engine_wfd);
    }
}

static void world_end(struct world *w)
{
    faults_end();
    for (int i = SOCKET; i < N_PLACES; i++) {
        struct place *p = &w->places[i];
        mg_loop_acquire(w->node.loop);
        mg_stream_close(p->stream);
        close(p->engine_rfd);
        if (p->engine_wfd != p->engine_rfd)
            close(p->engine_wfd);
        mg_loop_release(w->node.loop);
        mg_router_del_route(w->node.router, (uint32_t) i);
        mg_stream_unref(p->stream);
        close(p->rfd);
        if (p->wfd != p->rfd)
            close(p->wfd);
        free(p->in);
        free(p->out);
    }
    node_unlisten(&w->node, LATCH, w->latch);
    node_stop(&w->node);
}

/* Reads all frames that a neighbour got: messages for it, and answers to its own. */
static void take_frames(struct world *w, int place)
{
    struct place *p = &w->places[place];
    size_t at = 0;

    while (p->in_len - at >= MG_HEADER_LEN) {
        mg_hdr h;
        uint32_t which = UINT32_MAX;
        mg_hdr_decode(&h, p->in + at);
        CHECK(mg_enc_known(h.enc) && h.dst_id == (uint32_t) place);
        if (p->in_len - at - MG_HEADER_LEN < h.len)
            break;
        if (h.reply_to == MG_IS_DEAD) {
            /* the answers come in the order of the questions */
            CHECK(h.handle == REPLY);
            for (int i = N_WHAT; i-- > 0;)
                if (what[i].from == place && what[i].handle == NOBODY && !w->arrived[i])
                    which = (uint32_t) i;
        } else {
            CHECK(h.len >= 4);
            memcpy(&which, p->in + at + MG_HEADER_LEN, 4);
            CHECK(which < (uint32_t) N_WHAT && (uint32_t) what[which].from == h.src_id);
            check_payload(p->in + at + MG_HEADER_LEN, h.len, (int) which);
        }
        note_arrival(w, which);
        at += MG_HEADER_LEN + h.len;
    }
    p->in_len -= at;
    memmove(p->in, p->in + at, p->in_len);
}

/* Gives everybody a turn. */
static void turn(struct world *w)
{
    mg_item item;

    for (int i = SOCKET; i < N_PLACES; i++) {
        struct place *p = &w->places[i];
        ssize_t n = write(p->wfd, p->out + p->out_at, p->out_len - p->out_at);
        if (n > 0)
            p->out_at += (size_t) n;
        n = read(p->rfd, p->in + p->in_len, IN_SIZE - p->in_len);
        if (n > 0)
            p->in_len += (size_t) n;
        take_frames(w, i);
    }
    mg_loop_attend(w->node.loop, mg_now() + MG_SECOND / 1000);
    node_take_events(&w->node);
    for (; w->n_events < w->node.n_seen; w->n_events++)
        if (w->node.seen[w->n_events].kind == MG_EV_FRAME)
            note_arrival(w, w->node.seen[w->n_events].first);
    while (mg_latch_try(w->latch, &item) == MG_OK) {
        mg_frame *f = item.ptr;
        uint32_t which;
        memcpy(&which, mg_frame_payload(f), 4);
        note_arrival(w, which);
        check_payload(mg_frame_payload(f), f->hdr.len, (int) which);
        mg_frame_unref(f);
    }
}

/* Whether the end of a stream was told; at most once. */
static int has_ended(struct world *w, int place)
{
    int told = 0;

    for (size_t i = 0; i < w->n_events; i++)
        if ((w->node.seen[i].kind == MG_EV_GONE || w->node.seen[i].kind == MG_EV_BAD) &&
            w->node.seen[i].stream == w->places[place].stream)
            told++;
    CHECK(told <= 1);
    return told;
}

/* Sends all, and takes part until whatever can arrive has. Returns how many streams have ended. */
static int world_run(struct world *w, mg_frame *ours[N_WHAT])
{
    int refused[N_WHAT] = {0}, missing = 1, ended[N_PLACES] = {0};
    int64_t until = mg_now() + TEST_PATIENCE;

    for (int i = 0; i < N_WHAT; i++)
        if (ours[i])
            refused[i] = mg_router_route(w->node.router, ours[i], NULL) != MG_OK;
    while (missing) {
        CHECK(mg_now() < until);
        turn(w);
        for (int i = SOCKET; i < N_PLACES; i++)
            ended[i] = has_ended(w, i);
        missing = 0;
        for (int i = 0; i < N_WHAT; i++)
            missing += !w->arrived[i] && !refused[i] && !ended[what[i].from] && !ended[what[i].to];
    }
    return ended[SOCKET] + ended[PIPES];
}

static void make_ours(mg_frame *ours[N_WHAT])
{
    for (int i = 0; i < N_WHAT; i++) {
        mg_hdr h = hdr_of(i);
        ours[i] = what[i].from == US ? mg_frame_new(&h, what[i].len) : NULL;
        CHECK(ours[i] || what[i].from != US);
        if (ours[i])
            fill_payload(mg_frame_payload(ours[i]), i);
    }
}

/* One fault, and all is sent by way of it. Returns how many calls there were, and how many
 * streams ended. */
static long run_with_fault(long at, enum fault fault, int error, int *ended)
{
    struct world w;
    mg_frame *ours[N_WHAT];

    world_make(&w);
    make_ours(ours);
    faults_arm(at, fault, error, 0);
    *ended = world_run(&w, ours);
    long calls = atomic_load(&faults.calls);
    world_end(&w);
    return calls;
}

/* --- tests --- */

static void nothing_is_lost_whatever_one_read_or_write_does(void)
{
    static const enum fault kinds[] = {ONE_BYTE, HALF, INTERRUPTED, NOT_NOW};
    int ended;

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (long n = 1; run_with_fault(n, kinds[k], 0, &ended) >= n; n++)
            CHECK(!ended);
}

static void a_read_or_write_that_fails_ends_its_own_stream_once_and_no_other(void)
{
    static const int errors[] = {ECONNRESET, EPIPE, EIO, ENOBUFS, ETIMEDOUT};
    int ended;

    for (size_t k = 0; k < sizeof errors / sizeof *errors; k++)
        for (long n = 1; run_with_fault(n, BROKEN, errors[k], &ended) >= n; n++)
            CHECK(ended == 1);
}

static void nothing_is_lost_when_every_read_and_write_is_a_toss(void)
{
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct world w;
        mg_frame *ours[N_WHAT];

        world_make(&w);
        make_ours(ours);
        faults_arm(0, PLAIN, 0, seed);
        CHECK(world_run(&w, ours) == 0);
        world_end(&w);
    }
}

/* Where memory is out for one moment, either nothing is missing, or the sender was told, or the
 * stream has ended and that was told. */
static void nothing_is_lost_in_silence_when_one_allocation_fails(void)
{
    int failed = 1;

    for (long n = 1; failed; n++) {
        struct world w;
        mg_frame *ours[N_WHAT];

        world_make(&w);
        make_ours(ours);
        mg_alloc_fail_at(n);
        int ended = world_run(&w, ours);
        failed = mg_alloc_failed();
        mg_alloc_fail_at(0);
        CHECK(ended <= 1 && (failed || !ended));
        world_end(&w);
    }
}

/* --- many threads --- */

struct flooder {
    struct node *node;
    uint32_t id, other;
    uint32_t n;
    mg_latch *latch;
};

static size_t length_of(uint32_t who, uint32_t nth)
{
    unsigned state = who * 1000 + nth;
    unsigned r = test_random(&state);

    return 4 + (nth % 50 == 0 ? r % 100000 : r % 2000);
}

static void *send_all(void *arg)
{
    struct flooder *x = arg;

    for (uint32_t i = 0; i < x->n; i++) {
        mg_hdr h = {.enc = MG_ENC_BIN, .dst_id = x->other, .src_id = x->id, .auth_id = x->id, .handle = LATCH};
        mg_frame *f = mg_frame_new(&h, length_of(x->id, i));
        mg_stream *out;
        memcpy(mg_frame_payload(f), &i, 4);
        test_fill(mg_frame_payload(f) + 4, f->hdr.len - 4, i);
        CHECK(mg_router_route(x->node->router, f, &out) == MG_OK && out);
        while (mg_stream_full(out))
            mg_stream_wait_room(out);
        mg_stream_unref(out);
    }
    return NULL;
}

static void *get_all(void *arg)
{
    struct flooder *x = arg;

    for (uint32_t i = 0; i < x->n; i++) {
        mg_frame *f = test_get_frame(x->node->loop, x->latch);
        CHECK(f->hdr.len == length_of(x->other, i) && !memcmp(mg_frame_payload(f), &i, 4));
        CHECK(test_filled(mg_frame_payload(f) + 4, f->hdr.len - 4, i));
        mg_frame_unref(f);
    }
    return NULL;
}

static void two_that_flood_each_other_through_a_third_while_every_call_is_a_toss(void)
{
    struct three all;

    three_make(&all);
    faults_arm(0, PLAIN, 0, 99);
    for (int i = 0; i < 2; i++) {
        faults_on(all.fds[i]);
        faults_on(all.gds[i]);
    }
    three_connect(&all);
    struct flooder x = {.node = &all.a, .id = 1, .other = 2, .n = 600, .latch = node_listen(&all.a, LATCH)};
    struct flooder y = {.node = &all.b, .id = 2, .other = 1, .n = 600, .latch = node_listen(&all.b, LATCH)};
    pthread_t threads[] = {test_spawn(send_all, &x), test_spawn(send_all, &y), test_spawn(get_all, &x)};
    get_all(&y);
    for (size_t i = 0; i < 3; i++)
        test_join(threads[i]);
    node_unlisten(&all.a, LATCH, x.latch);
    node_unlisten(&all.b, LATCH, y.latch);
    three_disconnect(&all);
    faults_end();
    three_stop(&all);
}

int main(void)
{
    test_watchdog(240);
    signal(SIGPIPE, SIG_IGN);
    RUN(nothing_is_lost_whatever_one_read_or_write_does);
    RUN(a_read_or_write_that_fails_ends_its_own_stream_once_and_no_other);
    RUN(nothing_is_lost_when_every_read_and_write_is_a_toss);
    RUN(nothing_is_lost_in_silence_when_one_allocation_fails);
    RUN(two_that_flood_each_other_through_a_third_while_every_call_is_a_toss);
    mg_block_drop_spares();
    return 0;
}
