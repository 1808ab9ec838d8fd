/* A process that is stuck ends some time after its parent is gone; one that is not, or that has
 * ended the connection itself, does not. */
#include "loop/lifeline.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "test/test.h"

#if defined(__linux__) /* elsewhere there is none */

#define GRACE (MG_SECOND / 5)

enum how { STUCK, STUCK_AND_DEAF, ATTENDING, ENDED };

/* The child's part, in a process of its own, since it may be killed. Ends with 7 when it is not. */
static void child(int fd, enum how how)
{
    mg_loop *loop = mg_loop_new();
    mg_lifeline *line = mg_lifeline_start(loop, fd, GRACE);
    if (!line)
        _exit(1);
    if (how == STUCK_AND_DEAF)
        signal(SIGTERM, SIG_IGN);
    if (how == ENDED)
        mg_lifeline_end(line);
    char ready = 1;
    if (write(fd, &ready, 1) != 1)
        _exit(2);
    if (how == ATTENDING)
        mg_loop_attend(loop, mg_now() + 4 * GRACE);
    else
        usleep((how == ENDED ? 4 : 400) * (useconds_t) (GRACE / 1000));
    if (how == ATTENDING)
        mg_lifeline_end(line);
    mg_loop_unref(loop);
    _exit(7);
}

static int status_of(enum how how)
{
    int fds[2], status = -1;
    char ready;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    pid_t pid = fork();
    if (!pid) {
        close(fds[0]);
        child(fds[1], how);
    }
    close(fds[1]);
    CHECK(read(fds[0], &ready, 1) == 1);
    close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void one_that_is_stuck_is_ended(void)
{
    int status = status_of(STUCK);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void and_killed_where_it_does_not_hear(void)
{
    int status = status_of(STUCK_AND_DEAF);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void one_that_attends_goes_on(void)
{
    int status = status_of(ATTENDING);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void one_that_ended_the_connection_goes_on(void)
{
    int status = status_of(ENDED);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void a_copy_leaves_the_parents_thread_alone(void)
{
    int fds[2], status;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    mg_loop *loop = mg_loop_new();
    mg_lifeline *line = mg_lifeline_start(loop, fds[0], 1000 * MG_SECOND);
    CHECK(line);
    pid_t pid = fork();
    if (!pid) {
        mg_lifeline_end(line);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    mg_lifeline_end(line);
    mg_loop_unref(loop);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    RUN(one_that_is_stuck_is_ended);
    RUN(and_killed_where_it_does_not_hear);
    RUN(one_that_attends_goes_on);
    RUN(one_that_ended_the_connection_goes_on);
    RUN(a_copy_leaves_the_parents_thread_alone);
    return 0;
}

#else

int main(void)
{
    return 0;
}

#endif
