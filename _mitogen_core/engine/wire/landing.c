#include "wire/landing.h"

#include "wire/decoder.h"
#include "wire/peek.h"

_Static_assert(MG_LANDING_MIN >= MG_DECODER_DIRECT, "what may land is read directly");
_Static_assert(MG_LANDING_MIN > MG_DECODER_AROUND, "a hole is longer than what is around it");

int mg_landing_came(mg_landing *l, size_t len)
{
    if (len < MG_LANDING_MIN || len > MG_LANDING_MAX)
        return 0;
    return atomic_exchange_explicit(&l->len, len, memory_order_relaxed) == len && !mg_landing_has(l);
}

void mg_landing_offer(mg_landing *l, mg_buf *buf)
{
    mg_buf_unref(atomic_exchange(&l->buf, buf));
}

mg_buf *mg_landing_take(mg_landing *l, size_t len)
{
    mg_buf *buf = mg_landing_has(l) ? atomic_exchange(&l->buf, NULL) : NULL;
    if (!buf)
        return NULL;
    if (mg_buf_len(buf) == len) {
        atomic_fetch_add_explicit(&l->taken, 1, memory_order_relaxed);
        return buf;
    }
    /* the place has another length: put it back, unless there is a new one by now */
    mg_buf *none = NULL;
    if (!atomic_compare_exchange_strong(&l->buf, &none, buf))
        mg_buf_unref(buf);
    return NULL;
}

mg_buf *mg_landing_for(mg_landing *l, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at)
{
    size_t len = 0;
    *at = 0;
    if (hdr->enc == MG_ENC_BIN)
        len = hdr->len;
    else if (hdr->enc == MG_ENC_PKL)
        len = mg_peek_bytes(first, n, MG_LANDING_MIN, at);
    if (len < MG_LANDING_MIN || *at > n || *at > hdr->len || len > hdr->len - *at || hdr->len - len > MG_DECODER_AROUND)
        return NULL;
    return mg_landing_take(l, len);
}

int mg_landing_has(mg_landing *l)
{
    return atomic_load(&l->buf) != NULL;
}

void mg_landing_drop(mg_landing *l)
{
    atomic_store_explicit(&l->len, 0, memory_order_relaxed);
    mg_buf *buf = atomic_exchange(&l->buf, NULL);
    if (buf)
        mg_block_discard(mg_buf_ptr(buf), mg_buf_len(buf)); /* its owner may free it much later, see mg_landing_offer */
    mg_buf_unref(buf);
}

int mg_landing_to_look_after(mg_landing *l)
{
    return mg_landing_has(l) || atomic_load_explicit(&l->len, memory_order_relaxed);
}
