/* The one kind of error the engine knows. The binding turns it into exceptions, in one place. */
#ifndef MG_ERR_H
#define MG_ERR_H

typedef enum {
    MG_OK = 0,
    MG_EAGAIN,     /* nothing more can be done now: more input, or a writable fd, is needed */
    MG_ENOMEM,     /* an allocation failed */
    MG_ECORRUPT,   /* the input is not what the protocol says */
    MG_ETOOBIG,    /* a size limit is exceeded */
    MG_ECLOSED,    /* the object is closed */
    MG_ETIMEDOUT,  /* the deadline passed */
    MG_EINTR,      /* a signal arrived and has to be looked at */
    MG_ENOENT,     /* no such entry */
    MG_EEXIST,     /* there is one already */
    MG_EIO,        /* a system call failed; errno says how */
    MG_EFULL,      /* as many bytes wait as may */
    MG_EFORKED     /* the object belongs to the process this one was forked from */
} mg_err;

/* A static English text without a full stop; never NULL, also for a value that is none of the
 * above. */
const char *mg_strerror(mg_err err);

#endif
