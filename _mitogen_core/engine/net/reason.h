/* Why a message was not delivered. The numbers are shared with the layer above, which has a text
 * for each. */
#ifndef MG_NET_REASON_H
#define MG_NET_REASON_H

typedef enum {
    MG_REASON_INVALID_HANDLE,
    MG_REASON_REFUSED,
    MG_REASON_MISMATCH, /* reply from an unexpected context */
    MG_REASON_NO_ROUTE,
    MG_REASON_UNIDIRECTIONAL,
    MG_REASON_TOO_LARGE,
    MG_REASON_RESPONDENT, /* respondent context has disconnected */
    MG_REASON_BROKER_EXIT,
    MG_REASON_FULL,     /* the receiver is full: a is its limit */
    MG_REASON_BAD_AUTH, /* the two below: dropped without an answer */
    MG_REASON_BAD_SRC,
    MG_N_REASONS
} mg_reason;

#endif
