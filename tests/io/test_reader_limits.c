// Somebody without io_uring, without locked memory, without root gets the same bytes, and is told
// what is lost and how to get it back.
#include "tests/io/reader_world.h"

#include <linux/sched.h>

#define MEMORY_BYTES ((uint64_t)32 << 20)

static struct folder folder;
static char path[512];

static int make_file(void **state) {
    (void)state;
    folder_open(&folder);
    write_file(folder_path(&folder, "model.safetensors", path), 0, FILE_BYTES);
    return chmod(folder.path, 0755); // for those who are not us
}

static int remove_file(void **state) {
    (void)state;
    folder_close(&folder);
    return 0;
}

// Opens a reader and reads the whole file, into memory that is registered as far as that goes.
// *describe and *notes are what it says of itself.
static int read_all(enum io_mode mode, char describe[512], char notes[4096]) {
    struct reader *r;
    struct err err = { .status = OK };
    struct reader_options options = { .mode = mode };
    unsigned char *memory = aligned_alloc(READER_ALIGN, MEMORY_BYTES);
    CHILD_CHECK(memory);
    if (reader_open(&r, &options, &err) != OK)
        fprintf(stderr, "%s\n", err.text);
    CHILD_CHECK(err.status == OK);
    uint32_t file;
    CHILD_CHECK(reader_add_file(r, path, &file, &err) == OK);
    reader_add_memory(r, memory, MEMORY_BYTES);
    snprintf(describe, 512, "%s", reader_describe(r));
    snprintf(notes, 4096, "%s", reader_notes(r));
    const uint64_t n_blocks = (FILE_BYTES + READER_ALIGN - 1) / READER_ALIGN;
    for (uint64_t at = 0; at + n_blocks * READER_ALIGN <= MEMORY_BYTES; at += MEMORY_BYTES / 4) {
        struct request q = {
            .n_reads = 1,
            .reads = { { .bytes = n_blocks * READER_ALIGN,
                         .slack = (uint32_t)(n_blocks * READER_ALIGN - FILE_BYTES),
                         .dst = memory + at } },
        };
        memset(memory + at, GARBAGE, n_blocks * READER_ALIGN);
        reader_submit(r, &q);
        event_wait(reader_event(r), UINT64_MAX);
        CHILD_CHECK(reader_next(r) == &q && q.status == OK);
        CHILD_CHECK(holds(memory + at, 0, 0, FILE_BYTES));
    }
    reader_close(r);
    free(memory);
    return 0;
}

struct rule {
    unsigned call;          /* forbidden, if not 0 */
    bool limited;           /* in locked memory */
    uint64_t memlock_bytes; /* to so many */
    bool nobody;            /* be somebody else than the owner of the file */
    enum io_mode mode;
    const char *describe, *notes[3]; /* what has to be said */
};

static int live_by(void *context) {
    const struct rule *rule = context;
    char describe[512], notes[4096];
    CHILD_CHECK(!rule->nobody || setresuid(65534, 65534, 65534) == 0);
    CHILD_CHECK(!rule->limited || limit_memlock(rule->memlock_bytes) == 0);
    CHILD_CHECK(!rule->call || forbid_call(rule->call) == 0);
    if (read_all(rule->mode, describe, notes) != 0)
        return 1;
    if (rule->describe && !strstr(describe, rule->describe)) {
        fprintf(stderr, "described as \"%s\", not %s\n", describe, rule->describe);
        return 1;
    }
    for (int i = 0; i < 3 && rule->notes[i]; i++)
        if (!strstr(notes, rule->notes[i])) {
            fprintf(stderr, "noted \"%s\", not %s\n", notes, rule->notes[i]);
            return 1;
        }
    return 0;
}

static void forbidden_uring_is_replaced_by_threads(void **state) {
    (void)state;
    const unsigned calls[] = { __NR_io_uring_setup, __NR_io_uring_enter, __NR_io_uring_register };
    for (int i = 0; i < 3; i++)
        for (int mode = IO_AUTO; mode <= IO_BUFFERED; mode++) {
            struct rule rule = { .call = calls[i],
                                 .mode = mode == IO_DIRECT ? IO_AUTO : (enum io_mode)mode,
                                 .describe = "pread threads",
                                 .notes = { "threads: io_uring is forbidden here (seccomp)",
                                            "allow io_uring_setup", "profile" } };
            in_child(live_by, &rule);
        }
}

static void small_memlock_limit_costs_registration_only(void **state) {
    (void)state;
    if (!engine_is_here(URING)) {
        print_message("without io_uring nothing is registered\n");
        skip();
    }
    struct rule rule = { .limited = true,
                         .memlock_bytes = 8 << 20,
                         .describe = "io_uring",
                         .notes = { "RLIMIT_MEMLOCK is 8 MiB", "`ulimit -l unlimited`",
                                    "LimitMEMLOCK=infinity" } };
    in_child(live_by, &rule);
}

static void no_locked_memory_at_all_is_enough(void **state) {
    (void)state;
    struct rule rule = { .limited = true, .memlock_bytes = 0, .notes = { "RLIMIT_MEMLOCK" } };
    in_child(live_by, &rule);
}

static void everything_may_be_missing_at_once(void **state) {
    (void)state;
    struct rule rule = { .call = __NR_io_uring_setup,
                         .limited = true,
                         .memlock_bytes = 0,
                         .mode = IO_BUFFERED,
                         .describe = "pread threads, page cache" };
    in_child(live_by, &rule);
}

// To somebody who neither owns the file nor may write it the kernel does not show what is cached.
static void reader_need_not_own_the_file(void **state) {
    (void)state;
    if (geteuid() != 0) {
        print_message("only root can become somebody else\n");
        skip();
    }
    struct rule rule = { .nobody = true,
                         .limited = true,
                         .memlock_bytes = 8 << 20,
                         .describe = is_direct(path) ? "O_DIRECT" : NULL };
    in_child(live_by, &rule);
}

static int without_threads(void *context) {
    (void)context;
    struct reader *r;
    struct err err = { .status = OK };
    CHILD_CHECK(forbid_call(__NR_clone3) == 0 && forbid_call(__NR_clone) == 0);
    CHILD_CHECK(reader_open(&r, &(struct reader_options){ .mode = IO_AUTO }, &err) == ERR_SYSTEM);
    CHILD_CHECK(!r && strstr(err.text, "thread"));
    err_clear(&err);
    struct reader_options threads = { .forbid_uring = true };
    CHILD_CHECK(reader_open(&r, &threads, &err) == ERR_SYSTEM);
    CHILD_CHECK(!r && strstr(err.text, "thread"));
    return 0;
}

static void without_threads_there_is_no_reader(void **state) {
    (void)state;
    in_child(without_threads, NULL);
}

static int without_descriptors(void *context) {
    (void)context;
    struct rlimit limit = { .rlim_cur = 3, .rlim_max = 3 };
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    struct reader *r;
    struct err err = { .status = OK };
    uint32_t file;
    CHILD_CHECK(reader_open(&r, &(struct reader_options){ .mode = IO_AUTO }, &err) == OK);
    CHILD_CHECK(strstr(reader_notes(r), "io_uring cannot be set up: Too many open files"));
    CHILD_CHECK(reader_add_file(r, path, &file, &err) == ERR_IO);
    CHILD_CHECK(strstr(err.text, path) && strstr(err.text, "Too many open files"));
    reader_close(r);
    return 0;
}

static void without_descriptors_the_file_is_named(void **state) {
    (void)state;
    in_child(without_descriptors, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forbidden_uring_is_replaced_by_threads),
        cmocka_unit_test(small_memlock_limit_costs_registration_only),
        cmocka_unit_test(no_locked_memory_at_all_is_enough),
        cmocka_unit_test(everything_may_be_missing_at_once),
        cmocka_unit_test(reader_need_not_own_the_file),
        cmocka_unit_test(without_threads_there_is_no_reader),
        cmocka_unit_test(without_descriptors_the_file_is_named),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
