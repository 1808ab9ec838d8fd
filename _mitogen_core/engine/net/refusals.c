#include "net/refusals.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/well_known.h"
#include "net/event_kinds.h"
#include "net/router_body.h"

/* Refusals that may wait to be logged; a flood of them costs no memory. */
#define REFUSALS_MAX 256

/* --- reports to the layer above --- */

void mg_router_refusal_seen(mg_router *r)
{
    atomic_fetch_sub(&r->refusals_waiting, 1);
}

void mg_refusal_free(mg_refusal *refusal)
{
    if (!refusal)
        return;
    mg_stream_unref(refusal->stream);
    mg_stream_unref(refusal->expected);
    mg_free(refusal);
}

static mg_refusal *new_refusal(const mg_hdr *hdr, mg_reason reason, mg_stream *stream, mg_stream *expected,
                               const uint64_t *numbers)
{
    mg_refusal *refusal = mg_calloc(1, sizeof *refusal);
    if (!refusal)
        return NULL;
    refusal->reason = reason;
    refusal->hdr = *hdr;
    refusal->stream = stream ? mg_stream_ref(stream) : NULL;
    refusal->expected = expected ? mg_stream_ref(expected) : NULL;
    if (numbers)
        memcpy(refusal->numbers, numbers, sizeof refusal->numbers);
    return refusal;
}

/* Queues the refusal as an event, and takes it over. Returns 0 if there was no memory, and frees
 * it then. */
static int post_refusal(mg_router *r, mg_refusal *refusal)
{
    refusal->lost = atomic_exchange(&r->refusals_lost, 0);
    mg_event ev = {.kind = MG_EV_REFUSED, .a = refusal, .b = r};
    r->sink.ops->ref(&r->sink);
    if (mg_loop_push_event(r->loop, &ev) == MG_OK)
        return 1;
    atomic_fetch_add(&r->refusals_lost, refusal->lost);
    r->sink.ops->unref(&r->sink);
    mg_refusal_free(refusal);
    return 0;
}

void mg_router_report(mg_router *r, const mg_hdr *hdr, mg_reason reason, mg_stream *stream, mg_stream *expected,
                      const uint64_t *numbers)
{
    mg_refusal *refusal = NULL;
    atomic_fetch_add_explicit(&r->refused[reason], 1, memory_order_relaxed);
    if (atomic_fetch_add(&r->refusals_waiting, 1) < REFUSALS_MAX)
        refusal = new_refusal(hdr, reason, stream, expected, numbers);
    if (refusal && post_refusal(r, refusal))
        return;
    atomic_fetch_sub(&r->refusals_waiting, 1);
    atomic_fetch_add(&r->refusals_lost, 1);
}

/* --- dead messages --- */

mg_err mg_router_set_text(mg_router *r, mg_reason reason, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mg_malloc(size);
    if (!copy)
        return MG_ENOMEM;
    memcpy(copy, text, size);
    pthread_mutex_lock(&r->mu);
    char *old = r->texts[reason];
    r->texts[reason] = copy;
    pthread_mutex_unlock(&r->mu);
    mg_free(old);
    return MG_OK;
}

/* Fills the conversions of a message text with numbers, whatever their letter: the texts are
 * Python's and say %r. */
static size_t fill_text(char *out, size_t cap, const char *text, const uint64_t *numbers)
{
    size_t n = 0;
    int next = 0;
    for (; *text && n + 24 < cap; text++) {
        if (*text != '%')
            out[n++] = *text;
        else if (text[1] == '%') {
            out[n++] = '%';
            text++;
        } else if (text[1]) {
            n += (size_t) snprintf(out + n, cap - n, "%" PRIu64, next < 3 ? numbers[next] : 0);
            next++;
            text++;
        }
    }
    return n;
}

/* Writes the text of a reason, and gives our id. Returns the length. */
static size_t text_of(mg_router *r, mg_reason reason, const uint64_t *numbers, char *out, size_t cap, uint32_t *own_id)
{
    pthread_mutex_lock(&r->mu);
    size_t n = r->texts[reason] ? fill_text(out, cap, r->texts[reason], numbers) : 0;
    *own_id = r->own_id;
    pthread_mutex_unlock(&r->mu);
    uint64_t max_size = mg_sink_max_size(&r->sink);
    return n > max_size ? (size_t) max_size : n; /* else the dead message would be refused itself, and so on */
}

/* Makes a dead message with the ids of the message `of`; NULL: with our own ids. */
static mg_frame *dead_frame(mg_router *r, const mg_hdr *of, uint32_t dst_id, uint32_t handle, mg_reason reason,
                            const uint64_t *numbers)
{
    char text[512];
    uint32_t own_id;
    size_t n = text_of(r, reason, numbers, text, sizeof text, &own_id);
    mg_hdr hdr = {.enc = MG_ENC_MGC,
                  .dst_id = dst_id,
                  .src_id = of ? of->src_id : own_id,
                  .auth_id = of ? of->auth_id : own_id,
                  .handle = handle,
                  .reply_to = MG_IS_DEAD};
    mg_frame *f = mg_frame_new(&hdr, n);
    if (f && n)
        memcpy(mg_frame_payload(f), text, n);
    return f;
}

mg_frame *mg_router_dead_frame(mg_router *r, uint32_t dst_id, uint32_t handle, mg_reason reason, uint64_t a, uint64_t b,
                               uint64_t c)
{
    return dead_frame(r, NULL, dst_id, handle, reason, (uint64_t[]) {a, b, c});
}

mg_err mg_router_lost(mg_stream *s)
{
    if (s)
        mg_stream_fail(s);
    return MG_ENOMEM;
}

/* Whether the peer sends requests and does not read the answers; an honest peer does not leave
 * so many unread. */
static int is_deaf(mg_router *r, mg_stream *stream)
{
    return stream && mg_stream_pending_dead(stream) > mg_sink_high_water(&r->sink);
}

/* Sends a dead message, which is taken over, to the sender of a message that came by stream. */
static mg_err answer(mg_router *r, mg_frame *f, mg_stream *stream)
{
    if (f && is_deaf(r, stream)) {
        mg_frame_unref(f);
        atomic_fetch_add(&r->refusals_lost, 1);
        return MG_OK;
    }
    return f && mg_router_send_own(r, f) == MG_OK ? MG_OK : mg_router_lost(stream);
}

mg_err mg_router_dead(mg_router *r, const mg_hdr *hdr, mg_reason reason, int unreachable, mg_stream *stream, uint64_t a,
                      uint64_t b, uint64_t c)
{
    const uint64_t numbers[] = {a, b, c};
    mg_router_report(r, hdr, reason, stream, NULL, numbers);
    if (hdr->reply_to && hdr->reply_to != MG_IS_DEAD)
        return answer(r, dead_frame(r, NULL, hdr->src_id, hdr->reply_to, reason, numbers), stream);
    if (!unreachable) /* with the ids of the original sender, which may not have had this right either */
        return answer(r, dead_frame(r, hdr, hdr->dst_id, hdr->handle, reason, numbers), stream);
    return MG_OK;
}

/* --- a latch that is full --- */

/* Takes over the frame. */
static mg_err push_mark(mg_latch *l, mg_frame *f)
{
    mg_item mark = {f, MG_ITEM_FRAME, 0};
    mg_err err = f ? mg_latch_push(l, mark, NULL) : MG_ENOMEM;
    if (f && err != MG_OK)
        mg_frame_unref(f);
    return err;
}

mg_err mg_router_overflow(mg_router *r, mg_latch *l, const mg_hdr *hdr, mg_stream *stream)
{
    size_t limit = mg_latch_limit(l);
    mg_err err = mg_router_dead(r, hdr, MG_REASON_FULL, 1, stream, limit, 0, 0);
    if (!mg_latch_overflow(l))
        return err;
    mg_frame *f = mg_router_dead_frame(r, hdr->dst_id, hdr->handle, MG_REASON_FULL, limit, 0, 0);
    return push_mark(l, f) == MG_ENOMEM ? mg_router_lost(stream) : err;
}
