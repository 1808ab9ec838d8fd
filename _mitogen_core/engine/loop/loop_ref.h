/* A counted reference to a loop. All of this is for any thread. */
#ifndef MG_LOOP_REF_H
#define MG_LOOP_REF_H

typedef struct mg_loop mg_loop;

mg_loop *mg_loop_ref(mg_loop *loop);
void mg_loop_unref(mg_loop *loop); /* NULL is no harm */

/* Nobody leads or attends any more. */
int mg_loop_closed(const mg_loop *loop);

/* The loop is the parent process's, and this is a copy. It is closed, too. */
int mg_loop_was_forked(const mg_loop *loop);

#endif
