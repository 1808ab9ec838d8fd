/* How a leader polls before it sleeps: for the next frame to pass on, and for its own answer.
 * spin.h decides whether polling pays. For the files of this folder; leader only. */
#ifndef MG_LEADER_SPIN_H
#define MG_LEADER_SPIN_H

#include <stdint.h>

#include "loop/leader.h"
#include "sync/spin.h"

/* After MG_SPUN_WON and MG_SPUN_STOP there is something to look at before the leader sleeps.
 * MG_SPUN_LOST: it has polled for its answer, which it does once in a wait, in vain. */
mg_spun mg_leader_spin(mg_leading *l, int64_t now);

/* Whether parts of a large frame have come since *parts was counted, which is brought up to
 * date; the leader's sleep remembers when the first did. */
int mg_leader_has_new_part(const mg_leading *l, uint64_t *parts);

#endif
