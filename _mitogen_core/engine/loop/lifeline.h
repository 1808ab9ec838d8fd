/* Ends a process whose parent is gone while nobody can notice.
 *
 * DESIGN. The end of the parent's connection is for the attendant's thread to handle, in the
 * layer above, which needs its GIL. One call of a C function that never releases the GIL keeps
 * the process for ever. So a thread that needs nothing sleeps until the descriptor hangs up, and
 * then looks whether the attendant still comes and goes. When it has been away for the whole
 * grace period, the process is sent SIGTERM, and SIGKILL if that does not end it. Where there is
 * no epoll there is no such thread. */
#ifndef MG_LIFELINE_H
#define MG_LIFELINE_H

#include <stdint.h>

#include "loop/loop.h"

typedef struct mg_lifeline mg_lifeline;

/* Watches fd, which may be closed at any time after mg_lifeline_end. NULL: not possible here. */
mg_lifeline *mg_lifeline_start(mg_loop *loop, int fd, int64_t grace);

/* The connection ends by our own will, or its end has been noticed. Once, any thread; does not
 * block. NULL is no harm. In a child made by fork: the thread is in the other process, and is
 * left alone. */
void mg_lifeline_end(mg_lifeline *line);

#endif
