/* Flow control: streams that are not read while another one is full, and threads that wait for
 * room. */
#include <poll.h>
#include <time.h>

#include "net/stream.h"
#include "net/stream_body.h"

/* Elsewhere the end shows as POLLHUP only. */
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* The clock of mg_stream_wait_room: a wall clock can be set back. */
#if defined(__APPLE__)
#define ROOM_CLOCK CLOCK_REALTIME
#else
#define ROOM_CLOCK CLOCK_MONOTONIC
#endif

static void look_for_the_end(mg_task *look);

static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attr, ROOM_CLOCK);
#endif
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

void mg_stream_init_flow(mg_stream *s)
{
    init_cond(&s->room);
    mg_ilist_init(&s->feeders);
    s->end_look.run = look_for_the_end;
}

void mg_stream_fini_flow(mg_stream *s)
{
    pthread_cond_destroy(&s->room);
}

/* --- pausing --- */

void mg_stream_pause_for(mg_stream *from, mg_stream *full)
{
    if (from->fills || from->hung_up)
        return;
    from->fills = mg_stream_ref(full);
    mg_loop_poll_slow(from->loop, &from->end_look);
    mg_ilist_append(&full->feeders, &mg_stream_ref(from)->fed);
    mg_stream_set_reading(from);
}

/* Ends the pause; drops the references that each of the two has to the other. */
static void end_pause(mg_stream *from)
{
    mg_stream *full = from->fills;
    mg_node_remove(&from->fed);
    from->fills = NULL;
    mg_loop_unpoll_slow(from->loop, &from->end_look);
    mg_stream_unref(full);
    mg_stream_unref(from);
}

void mg_stream_resume_feeders(mg_stream *s)
{
    mg_node *node;
    while ((node = mg_ilist_first(&s->feeders))) {
        mg_stream *from = MG_CONTAINER(node, mg_stream, fed);
        mg_stream_post(from, MG_TODO_READ);
        end_pause(from);
    }
}

void mg_stream_stop_feeding(mg_stream *from)
{
    if (from->fills)
        end_pause(from);
}

/* A paused stream is not read, but the end of its input must be seen. The rest of that input is
 * then read in spite of the queue that it fills. It cannot be more than the system had room for. */
static void look_for_the_end(mg_task *look)
{
    mg_stream *s = MG_CONTAINER(look, mg_stream, end_look);
    struct pollfd pfd = {.fd = mg_stream_read_fd(s), .events = POLLRDHUP};
    if (poll(&pfd, 1, 0) <= 0 || !(pfd.revents & (POLLRDHUP | POLLHUP | POLLERR)))
        return;
    s->hung_up = 1;
    mg_stream_post(s, MG_TODO_READ);
    mg_stream_stop_feeding(s);
}

/* --- threads that wait for room --- */

int mg_stream_full(mg_stream *s)
{
    return mg_stream_pending(s) > mg_sink_high_water(s->sink);
}

static struct timespec in_100_ms(void)
{
    struct timespec until;
    clock_gettime(ROOM_CLOCK, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    return until;
}

mg_err mg_stream_wait_room(mg_stream *s)
{
    struct timespec until = in_100_ms();
    mg_err err = MG_OK;
    atomic_fetch_add_explicit(&s->blocked, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->wmu);
    while (err == MG_OK && s->wfd >= 0 && mg_outq_bytes(&s->out) > mg_sink_high_water(s->sink) / 2)
        if (pthread_cond_timedwait(&s->room, &s->wmu, &until))
            err = MG_EAGAIN;
    pthread_mutex_unlock(&s->wmu);
    atomic_fetch_sub_explicit(&s->blocked, 1, memory_order_relaxed);
    return err;
}
