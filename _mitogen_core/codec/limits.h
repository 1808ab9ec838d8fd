/* The bounds that the reader and the writer agree on. */
#ifndef MG_CODEC_LIMITS_H
#define MG_CODEC_LIMITS_H

/* How deep containers may nest in a value, both ways. (((),),) is 3 deep; an object that is no
 * plain type (Kwargs, Context, ...) counts one for the object and one for the arguments it is
 * made of.
 *
 * The reader needs the bound: it does not recurse itself, but nearly everything done with its
 * result afterwards does, and hashing a tuple, the one recursion that CPython leaves unguarded,
 * would run off the end of a thread's stack. The writer recurses, and must not write what a
 * reader refuses. 1000 is the interpreter's own default recursion limit, so nothing deeper could
 * have come from the standard pickler either. */
#define MG_CODEC_MAX_DEPTH 1000

/* A value may nest this deep on any stack. For deeper ones depth.h looks how much stack there
 * is. */
#define MG_CODEC_SHALLOW 16

/* Byte strings and ASCII texts of this many bytes or more are not copied into the output but
 * referred to. Below, the copy is cheaper than one more vector entry for the kernel. */
#define MG_CODEC_BYREF 16384

/* Decimal digits of one integer in the text form of protocol 0, where reading costs time
 * quadratic in them. It is the interpreter's own default limit from 3.11 on. */
#define MG_CODEC_MAX_DIGITS 4300

/* Characters of the text of a CallError; a text of this many is refused. */
#define MG_CODEC_MAX_CALL_ERROR 10000

/* How many keys a dictionary may have before the reader counts how they collide: finding one
 * cannot take longer. */
#define MG_CODEC_FREE_KEYS 256

/* The objects of a message may together be made of this many bytes, characters and items more
 * than the message is long. */
#define MG_CODEC_FREE_COPIES 65536

#endif
