#include "tools/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

enum { BY_KEY = 1, BY_TERMINATION = 2 };

// Lock-free, so a signal handler may store it and any thread may load it.
static atomic_int interrupted;

static void on_signal(int signal) {
    atomic_fetch_or(&interrupted, signal == SIGINT ? BY_KEY : BY_TERMINATION);
}

void interrupt_install(void) {
    // SA_RESETHAND: the second Ctrl-C is the system's own, and ends a process that does not listen.
    // No SA_RESTART: a read of standard input must notice.
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESETHAND };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    // A parent may have left it ignored, and then a closed pipe would be an error on every write.
    action = (struct sigaction){ .sa_handler = SIG_DFL };
    sigaction(SIGPIPE, &action, NULL);
    // `ulimit -f`: the write fails, and says so, instead of ending the process.
    action.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &action, NULL);
}

bool interrupt_requested(void *context) {
    (void)context;
    return atomic_load(&interrupted) != 0;
}

bool interrupt_forgive(void) {
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESETHAND };
    sigemptyset(&action.sa_mask);
    atomic_fetch_and(&interrupted, ~BY_KEY);
    sigaction(SIGINT, &action, NULL);
    return atomic_load(&interrupted) == 0;
}
