#include "loop/lifeline.h"

#if defined(__linux__)

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

/* How often it looks once the parent is gone. */
#define LOOK_MS 100

/* How long SIGTERM has to end the process. */
#define INSIST_MS 1500

struct mg_lifeline {
    _Atomic int refs; /* the thread's and the starter's */
    mg_loop *loop; /* with a reference */
    int epoll, wake;
    int64_t grace;
};

static void drop(mg_lifeline *line)
{
    if (atomic_fetch_sub(&line->refs, 1) != 1)
        return;
    close(line->epoll);
    close(line->wake);
    mg_loop_unref(line->loop);
    mg_free(line);
}

/* Sleeps until the descriptor hangs up (1), mg_lifeline_end was called (-1), or for that long
 * (0). */
static int look(mg_lifeline *line, int ms)
{
    struct epoll_event events[2];
    int n;
    do
        n = epoll_wait(line->epoll, events, 2, ms);
    while (n < 0 && errno == EINTR);
    int result = 0;
    for (int i = 0; i < n; i++)
        if (events[i].data.fd == line->wake)
            return -1;
        else
            result = 1;
    return n < 0 ? -1 : result;
}

static void *lifeline_main(void *arg)
{
    mg_lifeline *line = arg;
    int how = look(line, -1);
    uint64_t seen = 0, count;
    /* Looks are counted, not time: a process that was stopped had no chance to end in that time. */
    for (int64_t away = 0; how >= 0; how = look(line, LOOK_MS), away++) {
        if (mg_loop_attended(line->loop, &count) || count != seen) {
            seen = count;
            away = 0;
        } else if (away * (LOOK_MS * (MG_SECOND / 1000)) >= line->grace) {
            kill(getpid(), SIGTERM);
            if (look(line, INSIST_MS) >= 0)
                kill(getpid(), SIGKILL);
            break;
        }
    }
    drop(line);
    return NULL;
}

static int start_thread(mg_lifeline *line)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    /* no signals in this thread: other threads can run their handlers */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&thread, &attr, lifeline_main, line);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return err;
}

mg_lifeline *mg_lifeline_start(mg_loop *loop, int fd, int64_t grace)
{
    mg_lifeline *line = mg_calloc(1, sizeof *line);
    if (!line)
        return NULL;
    atomic_init(&line->refs, 2);
    line->loop = mg_loop_ref(loop);
    line->grace = grace;
    line->epoll = epoll_create1(EPOLL_CLOEXEC);
    line->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event hangup = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.fd = fd},
                       wake = {.events = EPOLLIN, .data.fd = line->wake};
    if (line->epoll < 0 || line->wake < 0 || epoll_ctl(line->epoll, EPOLL_CTL_ADD, fd, &hangup) ||
        epoll_ctl(line->epoll, EPOLL_CTL_ADD, line->wake, &wake) || start_thread(line)) {
        atomic_store(&line->refs, 1);
        drop(line);
        return NULL;
    }
    return line;
}

void mg_lifeline_end(mg_lifeline *line)
{
    if (!line)
        return;
    if (mg_loop_was_forked(line->loop))
        atomic_store(&line->refs, 1);
    else {
        uint64_t one = 1;
        ssize_t ignored = write(line->wake, &one, sizeof one);
        (void) ignored;
    }
    drop(line);
}

#else

mg_lifeline *mg_lifeline_start(mg_loop *loop, int fd, int64_t grace)
{
    (void) loop, (void) fd, (void) grace;
    return NULL;
}

void mg_lifeline_end(mg_lifeline *line)
{
    (void) line;
}

#endif
