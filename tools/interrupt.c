#include "tools/interrupt.h"

#include "io/clock.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

// A key is pressed twice within less than this by whoever means it once.
#define PATIENCE_NS 2000000000ull

// Lock-free, so a signal handler may store them and any thread may load them.
static atomic_bool by_key, by_termination;
static _Atomic uint64_t key_ns; // when by_key was set, in a chat

static void on_signal(int signal) {
    if (signal == SIGTERM)
        atomic_store(&by_termination, true);
    else
        atomic_store(&by_key, true);
}

static void listen_to(int signal, void (*handler)(int), int flags) {
    // No SA_RESTART: a read of standard input must notice.
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

// In a chat. What is not heeded for so long may hang, and then Ctrl-C is to help still.
static void on_key(int signal) {
    uint64_t now = clock_now_ns(clock_system());
    if (!atomic_exchange(&by_key, true))
        atomic_store(&key_ns, now);
    else if (now - atomic_load(&key_ns) > PATIENCE_NS)
        listen_to(signal, SIG_DFL, 0); // the next one
}

void interrupt_install(void) {
    // SA_RESETHAND: the second Ctrl-C is the system's own, and ends a process that does not listen.
    listen_to(SIGINT, on_signal, SA_RESETHAND);
    listen_to(SIGTERM, on_signal, SA_RESETHAND);
    // A parent may have left it ignored, and then a closed pipe would be an error on every write.
    listen_to(SIGPIPE, SIG_DFL, 0);
    // `ulimit -f`: the write fails, and says so, instead of ending the process.
    listen_to(SIGXFSZ, SIG_IGN, 0);
}

bool interrupt_requested(void *context) {
    (void)context;
    return atomic_load(&by_key) || atomic_load(&by_termination);
}

bool interrupt_forgive(void) {
    listen_to(SIGINT, on_key, 0);
    atomic_store(&by_key, false);
    return !atomic_load(&by_termination);
}
