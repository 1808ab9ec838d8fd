/* How deep the containers of a value may nest, by the stack that this thread has. */
#ifndef MG_CODEC_DEPTH_H
#define MG_CODEC_DEPTH_H

#include "codec/limits.h"

/* For values that nest deeper than MG_CODEC_SHALLOW. Any thread, never blocks for long: a thread
 * looks for its stack once. */
int mg_depth_fits_stack(unsigned depth);

/* Whether this thread may read or write a value that nests so deep. */
static inline int mg_depth_fits(unsigned depth)
{
    return depth <= MG_CODEC_SHALLOW || (depth <= MG_CODEC_MAX_DEPTH && mg_depth_fits_stack(depth));
}

#endif
