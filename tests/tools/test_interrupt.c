#include "tools/interrupt.h"

#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* How a child ended that installed the handlers and then did this. */
static int ended(void (*doing)(void)) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGPIPE, SIG_IGN); // as some parents leave it
        interrupt_install();
        doing();
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    return how;
}

static void first_interrupt(void) {
    if (interrupt_requested(NULL))
        _exit(1);
    raise(SIGINT);
    _exit(interrupt_requested(NULL) ? 42 : 2);
}

static void first_termination(void) {
    raise(SIGTERM);
    _exit(interrupt_requested(NULL) ? 42 : 2);
}

// As a chat does between answers.
static void forgiven_interrupts(void) {
    for (int i = 0; i < 3; i++) {
        raise(SIGINT);
        if (!interrupt_requested(NULL))
            _exit(1);
        if (!interrupt_forgive() || interrupt_requested(NULL))
            _exit(2);
    }
    raise(SIGTERM);
    raise(SIGINT);
    _exit(!interrupt_forgive() && interrupt_requested(NULL) ? 42 : 3);
}

static void two_interrupts(void) {
    raise(SIGINT);
    raise(SIGINT);
}

static void write_to_nobody(void) {
    int ends[2];
    if (pipe(ends) != 0)
        _exit(1);
    close(ends[0]);
    if (write(ends[1], "x", 1) < 0)
        _exit(2);
}

static void the_first_ctrl_c_asks_for_an_orderly_end(void **state) {
    (void)state;
    int how = ended(first_interrupt);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 42);
    how = ended(first_termination);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 42);
}

static void a_forgiven_ctrl_c_is_forgotten_and_termination_is_not(void **state) {
    (void)state;
    int how = ended(forgiven_interrupts);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 42);
}

static void the_second_ctrl_c_ends_the_process(void **state) {
    (void)state;
    int how = ended(two_interrupts);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGINT);
}

static void a_closed_pipe_ends_the_process_even_if_the_parent_ignored_it(void **state) {
    (void)state;
    int how = ended(write_to_nobody);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGPIPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_ctrl_c_asks_for_an_orderly_end),
        cmocka_unit_test(a_forgiven_ctrl_c_is_forgotten_and_termination_is_not),
        cmocka_unit_test(the_second_ctrl_c_ends_the_process),
        cmocka_unit_test(a_closed_pipe_ends_the_process_even_if_the_parent_ignored_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
