#include "loop/loop.h"

#include <sys/wait.h>

#include "base/block.h"
#include "test/actors.h"

static void a_loop_is_whole_or_not_there_when_memory_is_out(void)
{
    for (long n = 1;; n++) {
        mg_alloc_fail_at(n);
        mg_loop *loop = mg_loop_new();
        int failed = mg_alloc_failed();
        mg_alloc_fail_at(0);
        CHECK(failed == !loop);
        mg_loop_unref(loop);
        if (!failed)
            break;
    }
}

static void a_large_block_is_dropped_however_late_it_is_given_back(void)
{
    size_t size = (size_t) 20 << 20;
    mg_loop *loop = mg_loop_new();
    struct attending a;
    char *p = mg_block_new(size);

    CHECK(p);
    start_attending(&a, loop);
    AWAIT(attendant_leads(&a)); /* asleep by now, for all we know */
    p[0] = 1;
    mg_block_free(p, size);
    AWAIT(mg_block_spares() == 0);
    p = mg_block_new(size);
    CHECK(p);
    end_attending(&a);
    mg_loop_unref(loop);
    mg_block_free(p, size);
    CHECK(mg_block_spares() == 0);
}

static void a_place_to_land_in_is_dropped_after_an_idle_second(void)
{
    mg_loop *loop = mg_loop_new();
    mg_landing *l = mg_loop_landing(loop);
    struct attending a;

    CHECK(!mg_landing_came(l, MG_LANDING_MIN) && mg_landing_came(l, MG_LANDING_MIN));
    start_attending(&a, loop);
    AWAIT(attendant_leads(&a));
    mg_landing_offer(l, mg_buf_new(MG_LANDING_MIN)); /* by somebody who was told by then */
    AWAIT(!mg_landing_has(l) && !mg_landing_to_look_after(l));
    end_attending(&a);
    CHECK(!mg_landing_came(l, MG_LANDING_MIN));
    mg_landing_offer(l, mg_buf_new(MG_LANDING_MIN)); /* the loop frees it as it ends */
    mg_loop_unref(loop);
}

static void what_comes_while_nobody_looks_is_not_kept(void)
{
    mg_loop *loop = mg_loop_new();
    mg_landing *l = mg_loop_landing(loop);
    char *p = mg_block_new(MG_BLOCK_MIN);
    struct attending a;

    start_attending(&a, loop);
    AWAIT(mg_loop_is_unwatched(loop)); /* a second after the block was made */
    CHECK(p);
    p[0] = 1;
    mg_block_free(p, MG_BLOCK_MIN);
    CHECK(mg_block_spares() == 0);
    CHECK(!mg_landing_came(l, MG_LANDING_MIN) && mg_landing_came(l, MG_LANDING_MIN));
    mg_loop_offer_landing(loop, mg_buf_new(MG_LANDING_MIN));
    CHECK(!mg_landing_has(l));
    end_attending(&a);
    mg_loop_offer_landing(loop, mg_buf_new(MG_LANDING_MIN)); /* whoever leads next looks after it */
    CHECK(mg_landing_has(l) && !mg_loop_is_unwatched(loop));
    mg_loop_unref(loop);
}

static void a_forked_child_gives_the_loop_up_and_the_parent_does_not_notice(void)
{
    mg_loop *loop = mg_loop_new();
    struct bell bell;
    struct attending a;
    int status;

    bell_start(&bell, loop, NULL);
    mg_loop_offer_landing(loop, mg_buf_new(MG_LANDING_MIN));
    pid_t child = fork();
    if (!child) {
        int ok = mg_loop_closed(loop) && mg_loop_attend(loop, MG_NEVER) == MG_ECLOSED &&
                 !mg_landing_has(mg_loop_landing(loop));
        mg_loop_acquire(loop);
        mg_watch_stop(bell.watch);
        mg_loop_release(loop);
        mg_watch_free(bell.watch);
        mg_loop_unref(loop);
        _exit(ok ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(mg_landing_has(mg_loop_landing(loop)));
    start_attending(&a, loop);
    bell_ring(&bell);
    AWAIT(atomic_load(&bell.rung) == 1);
    end_attending(&a);
    bell_end(&bell, loop);
    mg_loop_unref(loop);
}

int main(void)
{
    test_watchdog(180);
    mg_spin_assume_room(0); /* test_polling.c is about that */
    RUN(a_forked_child_gives_the_loop_up_and_the_parent_does_not_notice);
    RUN(a_loop_is_whole_or_not_there_when_memory_is_out);
    RUN(a_large_block_is_dropped_however_late_it_is_given_back);
    RUN(a_place_to_land_in_is_dropped_after_an_idle_second);
    RUN(what_comes_while_nobody_looks_is_not_kept);
    return 0;
}
