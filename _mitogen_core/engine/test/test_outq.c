#include "wire/outq.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/test.h"

static int released;

static void count_release(void *arg)
{
    (void) arg;
    released++;
}

static void set_nonblocking(int fd)
{
    CHECK(!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

/* A frame with len payload bytes that depend on its number; every third one is segmented. */
static mg_frame *make_frame(unsigned number, size_t len)
{
    mg_hdr h = {.enc = MG_ENC_BIN, .dst_id = number};
    mg_frame *f;
    size_t i;

    if (number % 3) {
        f = mg_frame_new(&h, len);
        for (i = 0; i < len; i++)
            mg_frame_payload(f)[i] = (uint8_t) (number + i);
    } else {
        mg_buf *buf = mg_buf_new(len);
        mg_seg segs[3] = {{buf, 0, len / 3}, {buf, len / 3, len / 2 - len / 3}, {buf, len / 2, len - len / 2}};

        for (i = 0; i < len; i++)
            mg_buf_ptr(buf)[i] = (uint8_t) (number + i);
        f = mg_frame_new_segs(&h, segs, 3);
        mg_buf_unref(buf);
    }
    return f;
}

/* Appends the wire form of make_frame(number, len) at *at. */
static void expect_frame(uint8_t *wire, size_t *at, unsigned number, size_t len)
{
    mg_frame *f = make_frame(number, len);
    uint8_t *to = wire + *at;

    mg_hdr_encode(to, mg_frame_hdr(f));
    mg_frame_copy_payload(f, to + MG_HEADER_LEN);
    *at += mg_frame_wire_len(f);
    mg_frame_unref(f);
}

/* Queues many frames of all sizes, and reads them from the other end in odd portions while the
 * queue writes. */
static void all_bytes_arrive_in_order(int fds[2])
{
    enum { FRAMES = 600 };
    unsigned state = 5;
    uint8_t *want = malloc(8 << 20), *got = malloc(8 << 20);
    size_t n_want = 0, n_got = 0;
    mg_outq q;
    mg_err err;
    unsigned i;
    int waits = 0;

    set_nonblocking(fds[0]);
    set_nonblocking(fds[1]);
    mg_outq_init(&q);
    for (i = 0; i < FRAMES; i++) {
        size_t len = test_random(&state) % (i % 50 ? 300 : 200000);

        expect_frame(want, &n_want, i, len);
        mg_outq_append(&q, make_frame(i, len));
        CHECK(mg_outq_bytes(&q) == n_want);
    }
    do {
        ssize_t n;

        err = mg_outq_write(&q, fds[1]);
        CHECK(err == MG_OK || err == MG_EAGAIN);
        waits += err == MG_EAGAIN;
        n = read(fds[0], got + n_got, 1 + test_random(&state) % 150000);
        CHECK(n > 0);
        n_got += (size_t) n;
        CHECK(mg_outq_bytes(&q) <= n_want - n_got);
    } while (err != MG_OK);
    CHECK(mg_outq_bytes(&q) == 0 && mg_ilist_empty(&q.frames) && waits > 1);
    while (n_got < n_want)
        n_got += (size_t) read(fds[0], got + n_got, n_want - n_got);
    CHECK(!memcmp(want, got, n_want));
    mg_outq_fini(&q);
    free(want);
    free(got);
    close(fds[0]);
    close(fds[1]);
}

static void a_socket_gets_all_bytes_in_order(void)
{
    int fds[2];

    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    all_bytes_arrive_in_order(fds);
}

static void a_pipe_gets_all_bytes_in_order(void)
{
    int fds[2];

    CHECK(!pipe(fds));
    all_bytes_arrive_in_order(fds);
}

static void an_empty_queue_writes_nothing(void)
{
    mg_outq q;

    mg_outq_init(&q);
    CHECK(mg_outq_write(&q, -1) == MG_OK && mg_outq_bytes(&q) == 0);
    mg_outq_fini(&q);
}

static void a_lost_peer_is_an_error_and_no_signal(void)
{
    int fds[2];
    mg_outq q;

    signal(SIGPIPE, SIG_DFL);
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    close(fds[0]);
    mg_outq_init(&q);
    mg_outq_append(&q, make_frame(1, 10));
    errno = 0;
    CHECK(mg_outq_write(&q, fds[1]) == MG_EIO && errno == EPIPE);
    CHECK(mg_outq_bytes(&q) == 36);
    mg_outq_fini(&q);
    close(fds[1]);
}

static void write_to_a_pipe_without_a_reader(void (*disposition)(int))
{
    int fds[2];
    sigset_t mask, pending;
    mg_outq q;

    signal(SIGPIPE, disposition);
    CHECK(!pipe(fds));
    close(fds[0]);
    mg_outq_init(&q);
    mg_outq_append(&q, make_frame(1, 10));
    CHECK(mg_outq_write(&q, fds[1]) == MG_EIO && errno == EPIPE);
    mg_outq_fini(&q);
    close(fds[1]);
    CHECK(!sigpending(&pending) && !sigismember(&pending, SIGPIPE));
    CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &mask) && !sigismember(&mask, SIGPIPE));
    signal(SIGPIPE, SIG_DFL);
}

static void a_pipe_without_a_reader_is_an_error_and_no_signal(void)
{
    write_to_a_pipe_without_a_reader(SIG_IGN);
    write_to_a_pipe_without_a_reader(SIG_DFL);
}

static void a_frame_goes_when_its_last_byte_is_written_or_the_queue_is_cleared(void)
{
    static uint8_t big[1 << 20];
    mg_hdr h = {.enc = MG_ENC_BIN};
    uint8_t sink[4096];
    int fds[2], i;
    mg_outq q;

    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    set_nonblocking(fds[0]);
    set_nonblocking(fds[1]);
    mg_outq_init(&q);
    released = 0;
    for (i = 0; i < 3; i++) {
        mg_buf *buf = mg_buf_wrap(big, i ? sizeof big : 5, count_release, NULL);
        mg_seg seg = {buf, 0, mg_buf_len(buf)};

        mg_outq_append(&q, mg_frame_new_segs(&h, &seg, 1));
        mg_buf_unref(buf);
    }
    CHECK(mg_outq_write(&q, fds[1]) == MG_EAGAIN && released == 1 && q.skip > 0);
    mg_outq_clear(&q);
    CHECK(released == 3 && mg_outq_bytes(&q) == 0);

    /* Afterwards it is a queue like any other, from a whole frame on. */
    while (read(fds[0], sink, sizeof sink) > 0)
        continue;
    mg_outq_append(&q, make_frame(7, 3));
    CHECK(mg_outq_write(&q, fds[1]) == MG_OK && read(fds[0], sink, sizeof sink) == 29 && sink[5] == 7);
    mg_outq_fini(&q);
    close(fds[0]);
    close(fds[1]);
}

static void ignore_signal(int number)
{
    (void) number;
}

struct reader {
    int fd;
    pthread_t writer;
    size_t total;
};

static void *read_and_interrupt(void *arg)
{
    struct reader *r = arg;
    uint8_t sink[8192];
    ssize_t n;

    do {
        pthread_kill(r->writer, SIGUSR1);
        n = read(r->fd, sink, sizeof sink);
        r->total += n > 0 ? (size_t) n : 0;
    } while (n > 0);
    return NULL;
}

static void an_interrupted_write_goes_on(void)
{
    struct sigaction act, old;
    struct reader r = {0};
    pthread_t thread;
    mg_outq q;
    int fds[2], i;

    memset(&act, 0, sizeof act);
    act.sa_handler = ignore_signal; /* no SA_RESTART */
    sigaction(SIGUSR1, &act, &old);
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    r.fd = fds[0];
    r.writer = pthread_self();
    mg_outq_init(&q);
    for (i = 0; i < 100; i++)
        mg_outq_append(&q, make_frame((unsigned) i, 20000));
    pthread_create(&thread, NULL, read_and_interrupt, &r);
    mg_err err;
    while ((err = mg_outq_write(&q, fds[1])) == MG_EAGAIN) /* blocking, so a part means that a signal came */
        continue;
    CHECK(err == MG_OK);
    shutdown(fds[1], SHUT_RDWR);
    pthread_join(thread, NULL);
    CHECK(r.total == 100 * 20026);
    mg_outq_fini(&q);
    close(fds[0]);
    close(fds[1]);
    sigaction(SIGUSR1, &old, NULL);
}

int main(void)
{
    RUN(an_empty_queue_writes_nothing);
    RUN(a_socket_gets_all_bytes_in_order);
    RUN(a_pipe_gets_all_bytes_in_order);
    RUN(a_lost_peer_is_an_error_and_no_signal);
    RUN(a_pipe_without_a_reader_is_an_error_and_no_signal);
    RUN(a_frame_goes_when_its_last_byte_is_written_or_the_queue_is_cleared);
    RUN(an_interrupted_write_goes_on);
    return 0;
}
