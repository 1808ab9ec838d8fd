/* Bytes in, frames out: cuts the input of one stream into frames, however the bytes were split
 * on their way.
 *
 * It reads no fd. The loop has one large scratch buffer for all its streams and lends it for one
 * turn at a time, so an idle stream has no buffer:
 *
 *     n = mg_decoder_begin(d, scratch, cap, iov);
 *     got = readv(fd, iov, n);
 *     if (got > 0)
 *         mg_decoder_commit(d, got);
 *     while ((err = mg_decoder_next(d, &frame)) == MG_OK)
 *         ... frame is ours ...
 *     err = mg_decoder_end(d);
 *
 * The loop may leave the while early, end the turn, and later carry on with mg_decoder_next()
 * alone: outside a turn it takes the frames from the decoder's own store, without copying the
 * rest about. mg_decoder_begin() without reading does the same, at the price of two copies of
 * what is left. To read again within a turn, begin again with the same scratch.
 *
 * A decoder is used by one thread at a time; only mg_decoder_set_max_size() may be called from
 * any other meanwhile. */
#ifndef MG_DECODER_H
#define MG_DECODER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "wire/frame.h"

/* A frame with a payload of this size or more gets its own storage as soon as its header is
 * there, and is read into it. A smaller one is copied out of the scratch buffer. */
#define MG_DECODER_LARGE (32 * 1024)

/* The least scratch that always has room to read: a header and the largest payload that is not
 * large. */
#define MG_DECODER_MIN_SCRATCH (MG_HEADER_LEN + MG_DECODER_LARGE)

/* A large frame is allocated in full up to this size. Beyond it storage doubles each time it is
 * full, so a header that lies costs at most this step, or as much again as was really sent. */
#define MG_DECODER_STEP ((size_t) 64 * 1024 * 1024)

/* How much of the input mg_decoder_pending() still knows after mg_decoder_end(). */
#define MG_DECODER_PENDING 2048

/* Finds a place for a part of a large payload that is to be read into an object of the layer
 * above. hdr: the announced header; first[0..n): how its payload begins. Returns a buffer, and
 * where in the payload it begins, such that it begins within what is there already, ends within
 * the payload, and leaves no more than MG_DECODER_AROUND bytes of that outside; or NULL. */
typedef mg_buf *mg_land(void *arg, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at);
#define MG_DECODER_AROUND ((size_t) 64 * 1024)

/* After a frame with a payload of `direct` bytes, a turn reads this little at first, so that
 * most of another such frame goes to where it belongs. Only where `land` is set. */
#define MG_DECODER_DIRECT ((size_t) 96 * 1024)
#define MG_DECODER_HEAD   ((size_t) 4 * 1024)

/* The body is visible for embedding. err and bad may be read; the rest belongs to decoder.c. */
typedef struct {
    mg_err err; /* MG_OK, or the error that mg_decoder_next() returns from now on */
    mg_hdr bad; /* after MG_ECORRUPT and MG_ETOOBIG: the header it is about */
    size_t large; /* MG_DECODER_LARGE; set once, after init. Tests use smaller values */
    size_t step; /* MG_DECODER_STEP; likewise. At least 1 */
    size_t direct; /* MG_DECODER_DIRECT; likewise */
    mg_land *land; /* likewise, or NULL: asked when a large frame begins */
    void *land_arg; /* what it is given */
    _Atomic uint64_t max_size;

    uint8_t *base; /* the window: base[pos..end) is input not yet taken; is the scratch or own */
    size_t pos;
    size_t end;
    size_t cap; /* how far the window reaches */
    uint8_t *own; /* where input is kept between turns, or NULL */
    size_t own_cap;

    mg_frame *big; /* the large frame that is being filled, or NULL; while it has a gap the window is empty */
    size_t big_have; /* payload bytes that arrived */
    size_t big_room; /* payload bytes there is storage for, at least big_have */
    int direct_last; /* the last header announced `direct` bytes or more: so may the next */
} mg_decoder;

/* Cannot fail, allocates nothing. max_size: the largest payload allowed, in bytes; it can exceed
 * 32 bits. */
void mg_decoder_init(mg_decoder *d, uint64_t max_size);

/* Drops all input that is kept. The decoder may be initialised again. */
void mg_decoder_fini(mg_decoder *d);

/* From any thread, at any time; counts for each header that is judged later. */
void mg_decoder_set_max_size(mg_decoder *d, uint64_t max_size);
uint64_t mg_decoder_max_size(const mg_decoder *d);

/* Opens a turn and says where to read to: fills iov and returns how many entries, 1 or 2; 0 only
 * in the error state (which an allocation in here can cause: see d->err). While a large frame is
 * filled: iov[0] is the rest of its storage, and iov[1], once that reaches to its end, the
 * scratch. Of the scratch, only MG_DECODER_HEAD bytes may be offered, see there. Else the bytes
 * left over are put at the start of the scratch, and iov[0] is the space behind them; when that
 * leaves little space, because frames were left untaken, it is space behind them in the
 * decoder's own store. scratch[0..cap) belongs to the decoder until mg_decoder_end(); cap is at
 * least MG_DECODER_MIN_SCRATCH. */
int mg_decoder_begin(mg_decoder *d, uint8_t *scratch, size_t cap, struct iovec iov[2]);

/* n bytes were read into what mg_decoder_begin() gave, in order. Once per begin, or not at all. */
void mg_decoder_commit(mg_decoder *d, size_t n);

/* Takes the next frame. MG_OK: *out is the caller's reference. MG_EAGAIN: input is needed.
 * MG_ECORRUPT: enc is unknown. MG_ETOOBIG: len is over the limit; judged as soon as the header
 * is complete, before anything is allocated or awaited. MG_ENOMEM. An error stays: nothing is
 * decoded after it. *out is NULL unless MG_OK. */
mg_err mg_decoder_next(mg_decoder *d, mg_frame **out);

/* Ends the turn: keeps what was not taken (whole frames included) in own storage, or frees that
 * storage when nothing is left. MG_OK, MG_ENOMEM (what was left is lost, and the error stays),
 * or the error there already was. */
mg_err mg_decoder_end(mg_decoder *d);

/* Appends n bytes that came from elsewhere, as if they had been read; then call
 * mg_decoder_next(). In or out of a turn, but not between mg_decoder_begin() and its
 * mg_decoder_commit(). MG_OK, MG_ENOMEM (the error stays), or the error there was. */
mg_err mg_decoder_feed(mg_decoder *d, const void *ptr, size_t n);

/* The header of the large frame that has arrived in part, NULL if there is none. Borrowed: valid
 * until the next call with d. */
const mg_hdr *mg_decoder_arriving(const mg_decoder *d);

/* 1 when mg_decoder_next() would not say MG_EAGAIN: a whole frame is here, or an error. Cheap. */
int mg_decoder_has_data(const mg_decoder *d);

/* Bytes of input that are kept: the part of a frame that arrived, and frames not taken. When the
 * input ends and this is not 0, it ended within a frame (or frames were left untaken). */
uint64_t mg_decoder_kept(const mg_decoder *d);

/* The input that is kept outside a large frame, in place; after an error it begins with the
 * offending header. At most MG_DECODER_PENDING bytes. Borrowed: valid until the next call with
 * d; after an error also across mg_decoder_end(). */
void mg_decoder_pending(const mg_decoder *d, const uint8_t **ptr, size_t *len);

#endif
