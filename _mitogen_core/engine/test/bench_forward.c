/* How fast the engine is without anything above it:
 *  - small frames that a middle node forwards, in a process and on a core of its own;
 *  - round trips between two processes, and between two threads, each waiting in mg_loop_wait().
 * usage: bench_forward [SECONDS]; each line says what it measured. */
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "test/test_net.h"

enum { FRAME = 64, BATCH = 256, HANDLE = 2000 };

static double seconds = 2;

/* Pins to that core, or (-1) to all cores that were allowed at the start. */
static cpu_set_t allowed;

static void pin(int nth)
{
    cpu_set_t set;

    if (nth < 0) {
        sched_setaffinity(0, sizeof allowed, &allowed);
        return;
    }
    nth %= CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && nth-- == 0) {
            CPU_ZERO(&set);
            CPU_SET(cpu, &set);
            sched_setaffinity(0, sizeof set, &set);
            return;
        }
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* --- forwarding --- */

static void feed(int fd)
{
    static uint8_t wire[FRAME * BATCH];
    mg_hdr h = {.enc = MG_ENC_BIN, .dst_id = 2, .src_id = 1, .auth_id = 1, .handle = 5, .len = FRAME - MG_HEADER_LEN};
    int64_t until = mg_deadline(seconds);

    for (int i = 0; i < BATCH; i++)
        mg_hdr_encode(wire + i * FRAME, &h);
    while (mg_now() < until)
        peer_write(fd, wire, sizeof wire);
}

static uint64_t drain(int fd)
{
    static uint8_t wire[1 << 16];
    uint64_t n = 0;
    ssize_t got;

    while ((got = read(fd, wire, sizeof wire)) > 0)
        n += (uint64_t) got;
    return n;
}

static void bench_forwarding(void)
{
    struct node node;
    int in[2], out[2], report[2];
    uint64_t bytes;
    double used;

    test_pair(in, 0);
    test_pair(out, 0);
    CHECK(!pipe(report));
    pid_t feeder = fork();
    if (!feeder) {
        pin(1);
        feed(in[1]);
        _exit(0);
    }
    close(in[1]);
    pid_t sink = fork();
    if (!sink) {
        pin(1);
        close(out[0]);
        close(in[0]);
        bytes = drain(out[1]);
        CHECK(write(report[1], &bytes, sizeof bytes) == sizeof bytes);
        _exit(0);
    }
    close(out[1]);
    pin(0);
    int64_t began = mg_now();
    double cpu = cpu_seconds();
    node_start(&node, 0, -1);
    mg_stream *to = node_connect(&node, 2, out[0], 1), *from = node_connect(&node, 1, in[0], 1);
    AWAIT(node_count(&node, MG_EV_GONE) == 1 && mg_stream_pending(to) == 0);
    used = cpu_seconds() - cpu;
    double took = (double) (mg_now() - began) / 1e9;
    CHECK(atomic_load(&from->bytes_in) == atomic_load(&to->bytes_out));
    node_disconnect(&node, from);
    node_disconnect(&node, to);
    node_stop(&node);
    CHECK(read(report[0], &bytes, sizeof bytes) == sizeof bytes);
    waitpid(feeder, NULL, 0);
    waitpid(sink, NULL, 0);
    pin(-1);
    printf("forwarding, frames of %d B: %.0f frames/s; %.0f per CPU second of the forwarder\n", FRAME,
           (double) (bytes / FRAME) / took, (double) (bytes / FRAME) / used);
    close(report[0]);
    close(report[1]);
}

/* --- round trips --- */

struct player {
    struct node node;
    mg_latch *latch;
    mg_stream *stream;
    uint32_t other;
};

static void player_start(struct player *p, uint32_t id, uint32_t other, int fd)
{
    node_start(&p->node, id, -1);
    p->other = other;
    p->latch = node_listen(&p->node, HANDLE);
    p->stream = node_connect(&p->node, other, fd, 1);
}

static void player_end(struct player *p)
{
    node_disconnect(&p->node, p->stream);
    node_unlisten(&p->node, HANDLE, p->latch);
    node_stop(&p->node);
}

static void serve(struct player *p, char c)
{
    uint32_t id = p->node.router->own_id;

    mg_router_route(p->node.router,
                    test_frame((mg_hdr) {.dst_id = p->other, .src_id = id, .auth_id = id, .handle = HANDLE}, &c, 1),
                    NULL);
}

static char await_ball(struct player *p)
{
    mg_frame *f = test_get_frame(p->node.loop, p->latch);
    char c = (char) *mg_frame_payload(f);

    mg_frame_unref(f);
    return c;
}

static void *send_back(void *arg)
{
    struct player *p = arg;
    char c;

    do
        serve(p, c = await_ball(p));
    while (c != '.');
    return NULL;
}

static void measure(struct player *p, const char *what)
{
    mg_loop_stats before, after;
    int64_t until;
    uint64_t n = 0;

    for (int i = 0; i < 200; i++) { /* warm up */
        serve(p, 'x');
        await_ball(p);
    }
    mg_loop_get_stats(p->node.loop, &before);
    int64_t began = mg_now();
    double cpu = cpu_seconds();
    for (until = mg_deadline(seconds); mg_now() < until; n++) {
        serve(p, 'x');
        await_ball(p);
    }
    double took = (double) (mg_now() - began);
    cpu = cpu_seconds() - cpu;
    mg_loop_get_stats(p->node.loop, &after);
    serve(p, '.');
    await_ball(p);
    printf("round trip, %s: %.2f us; %.2f us of CPU in this process; of 100: led %.0f, spun well %.0f, in vain %.0f\n",
           what, took / 1e3 / (double) n, cpu * 1e6 / (double) n,
           100.0 * (double) (after.leads - before.leads) / (double) n,
           100.0 * (double) (after.spins_won - before.spins_won) / (double) n,
           100.0 * (double) (after.spins_lost - before.spins_lost) / (double) n);
}

static void bench_processes(const char *what, int one_core, int64_t spin)
{
    struct player me;
    int fds[2];

    test_pair(fds, 0);
    CHECK(!fcntl(fds[1], F_SETFL, O_NONBLOCK));
    mg_spin_set(spin);
    if (one_core)
        pin(0);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        close(fds[0]);
        player_start(&me, 2, 1, fds[1]);
        send_back(&me);
        AWAIT(node_count(&me.node, MG_EV_GONE) == 1);
        player_end(&me);
        _exit(0);
    }
    close(fds[1]);
    player_start(&me, 1, 2, fds[0]);
    measure(&me, what);
    player_end(&me);
    waitpid(child, NULL, 0);
    pin(-1);
}

static void bench_threads(const char *what, int one_core, int64_t spin)
{
    struct player me, other;
    int fds[2];

    test_pair(fds, 0);
    CHECK(!fcntl(fds[1], F_SETFL, O_NONBLOCK));
    mg_spin_set(spin);
    if (one_core)
        pin(0);
    player_start(&me, 1, 2, fds[0]);
    player_start(&other, 2, 1, fds[1]);
    pthread_t thread = test_spawn(send_back, &other);
    measure(&me, what);
    test_join(thread);
    player_end(&me);
    player_end(&other);
    pin(-1);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seconds = atof(argv[1]);
    sched_getaffinity(0, sizeof allowed, &allowed);
    printf("cores: %d\n", CPU_COUNT(&allowed));
    bench_forwarding();
    bench_processes("two processes, may spin", 0, 150000);
    bench_processes("two processes, no spinning", 0, 0);
    bench_processes("two processes on one core", 1, 50000);
    bench_threads("two threads, may spin", 0, 150000);
    bench_threads("two threads, no spinning", 0, 0);
    bench_threads("two threads on one core", 1, 50000);
    return 0;
}
