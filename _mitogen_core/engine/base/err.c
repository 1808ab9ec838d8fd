#include "base/err.h"

const char *mg_strerror(mg_err err)
{
    switch (err) {
    case MG_OK: return "no error";
    case MG_EAGAIN: return "nothing more can be done now";
    case MG_ENOMEM: return "out of memory";
    case MG_ECORRUPT: return "corrupt input";
    case MG_ETOOBIG: return "size limit exceeded";
    case MG_ECLOSED: return "closed";
    case MG_ETIMEDOUT: return "timed out";
    case MG_EINTR: return "interrupted by a signal";
    case MG_ENOENT: return "no such entry";
    case MG_EEXIST: return "entry exists already";
    case MG_EIO: return "input/output error";
    case MG_EFULL: return "full";
    case MG_EFORKED: return "belongs to the process before the fork";
    }
    return "unknown error";
}
