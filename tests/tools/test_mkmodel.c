/* The command itself, from its command line to the files: what the options mean. How files are
 * written is tests/src/checkpoint/test_checkpoint_make.c, what is in them test_weights_make.c. */
#include "tools/commands.h"

#include "src/checkpoint/checkpoint.h"
#include "src/text/tokenizer.h"
#include "tests/support/make_checkpoint.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <cmocka.h>

static const struct command command = { .name = "mkmodel",
                                        .bit = COMMAND_MKMODEL,
                                        .operands = "DIR",
                                        .least_operands = 1,
                                        .most_operands = 1,
                                        .about = "Make a checkpoint.",
                                        .run = cmd_mkmodel };

static char *dir, said[4096];
static char model[256];

static int make_dir(void **state) {
    (void)state;
    dir = make_temp_dir();
    snprintf(model, sizeof model, "%s/model", dir ? dir : "");
    return dir == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

/* Run the command line `mkmodel … dir/model`; its exit code. What it says is in `said`. */
#define MKMODEL(...) mkmodel((char *[]){ __VA_ARGS__ __VA_OPT__(, ) model, NULL })
static int mkmodel(char **argv) {
    struct options o = { .command = &command };
    struct err err = { .status = OK };
    int argc = 0, code;
    while (argv[argc])
        argc++;
    if (options_parse(&o, &command, argc, argv, &err) != OK)
        fail_msg("%s", err.text);
    char path[256];
    snprintf(path, sizeof path, "%s/said", dir);
    fflush(stderr);
    const int kept = dup(STDERR_FILENO), file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(kept >= 0 && file >= 0);
    dup2(file, STDERR_FILENO);
    code = cmd_mkmodel(&o);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    const ssize_t n = pread(file, said, sizeof said - 1, 0);
    assert_true(n >= 0);
    said[n] = '\0';
    close(file);
    return code;
}

static struct checkpoint open_made(void) {
    struct checkpoint cp;
    struct err err = { .status = OK };
    const char *const dirs[] = { model };
    if (checkpoint_open(&cp, dirs, 1, &err) != OK)
        fail_msg("%s", err.text);
    return cp;
}

static void demo_is_whole_small_and_has_a_draft_block(void **state) {
    (void)state;
    assert_int_equal(MKMODEL("--seed", "5"), EXIT_OK);
    assert_non_null(strstr(said, "8 layers, 32 experts"));
    struct checkpoint cp = open_made();
    assert_int_equal(cp.config.n_layers, 8);
    assert_int_equal(cp.draft, DRAFT_MTP);
    assert_int_equal(cp.config.n_hash_layers, 3);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < cp.n_files; i++)
        bytes += cp.files[i].bytes;
    assert_true(bytes < 98000000);
    checkpoint_close(&cp);
}

static void tokenizer_of_a_made_model_covers_its_vocabulary(void **state) {
    (void)state;
    assert_int_equal(MKMODEL("--layers", "1"), EXIT_OK);
    struct checkpoint cp = open_made();
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizer.json", model);
    struct tokenizer *t;
    struct err err = { .status = OK };
    if (tokenizer_open(&t, path, &err) != OK)
        fail_msg("%s", err.text);
    assert_int_equal(tokenizer_n_ids(t), cp.config.vocab);
    uint32_t id;
    assert_true(tokenizer_added_id(t, "<｜begin▁of▁sentence｜>", &id));
    assert_int_equal(id, cp.config.bos_token);
    tokenizer_close(t);
    checkpoint_close(&cp);
    static const char *const names[] = { "generation_config.json", "tokenizer_config.json" };
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", model, names[i]);
        assert_int_equal(access(path, R_OK), 0);
    }
}

static void layers_and_first_choose_from_the_real_list(void **state) {
    (void)state;
    static const struct {
        char *layers, *first; /* NULL: not given */
        uint32_t n, n_hash, ratio;
    } cases[] = {
        { "2", NULL, 2, 0, 128 }, // from layer 3 on
        { "7", NULL, 7, 2, 0 },   // there are not that many from 3 on: from 1
        { "2", "1", 2, 2, 0 },    { "1", "4", 1, 0, 4 }, { NULL, "2", 3, 1, 4 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[8];
        int argc = 0;
        if (cases[i].layers) {
            argv[argc++] = "--layers";
            argv[argc++] = cases[i].layers;
        }
        if (cases[i].first) {
            argv[argc++] = "--first";
            argv[argc++] = cases[i].first;
        }
        snprintf(model, sizeof model, "%s/model%zu", dir, i);
        argv[argc++] = model;
        argv[argc] = NULL;
        assert_int_equal(mkmodel(argv), EXIT_OK);
        struct checkpoint cp = open_made();
        assert_int_equal(cp.config.n_layers, cases[i].n);
        assert_int_equal(cp.config.n_hash_layers, cases[i].n_hash);
        assert_int_equal(cp.config.ratio[0], cases[i].ratio);
        checkpoint_close(&cp);
    }
}

static void drafts_and_shards_mean_what_they_say(void **state) {
    (void)state;
    assert_int_equal(MKMODEL("--layers", "2", "--drafts", "none", "--shards", "5"), EXIT_OK);
    struct checkpoint cp = open_made();
    assert_int_equal(cp.draft, DRAFT_NONE);
    assert_string_equal(cp.note, "");
    assert_int_equal(cp.n_files, 5);
    checkpoint_close(&cp);
}

static void layers_that_are_not_there_are_a_usage_error(void **state) {
    (void)state;
    assert_int_equal(MKMODEL("--first", "7", "--layers", "2"), EXIT_USAGE);
    assert_non_null(strstr(said, "layers 0 to 7"));
    assert_int_equal(MKMODEL("--layers", "9"), EXIT_USAGE);
    assert_int_equal(access(model, F_OK), -1);
}

static void nothing_is_ever_overwritten(void **state) {
    (void)state;
    assert_int_equal(MKMODEL("--layers", "1"), EXIT_OK);
    assert_int_equal(MKMODEL("--layers", "1", "--seed", "2"), EXIT_USAGE);
    assert_non_null(strstr(said, model));
    assert_non_null(strstr(said, "not empty"));
    struct checkpoint cp = open_made();
    checkpoint_close(&cp);
}

/* The whole of Pro on a file system in memory, which is never that large. */
static void model_that_does_not_fit_on_the_drive_is_refused_at_once(void **state) {
    (void)state;
    struct statvfs fs;
    if (statvfs("/dev/shm", &fs) != 0 || (double)fs.f_blocks * (double)fs.f_frsize > 500e9 ||
        access("/dev/shm", W_OK) != 0)
        skip();
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/sluice-test-%d", (int)getpid());
    assert_int_equal(mkmodel((char *[]){ "--preset", "pro", "--layers", "61", path, NULL }),
                     EXIT_FAILED);
    assert_non_null(strstr(said, "needs 85"));
    assert_non_null(strstr(said, "GB free"));
    assert_int_equal(access(path, F_OK), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(demo_is_whole_small_and_has_a_draft_block),
        TEST(tokenizer_of_a_made_model_covers_its_vocabulary),
        TEST(layers_and_first_choose_from_the_real_list),
        TEST(drafts_and_shards_mean_what_they_say),
        TEST(layers_that_are_not_there_are_a_usage_error),
        TEST(nothing_is_ever_overwritten),
        TEST(model_that_does_not_fit_on_the_drive_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
