#include "src/checkpoint/checkpoint_make.h"

#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/config_make.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/weights_make.h"
#include "tests/support/make_checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define SEED 11

static char *dir; /* one for each test, made and removed around it */
static char at[256];

static int make_dir(void **state) {
    (void)state;
    dir = make_temp_dir();
    return dir == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

/* dir/name, until the next call. */
static const char *in_dir(const char *name) {
    snprintf(at, sizeof at, "%s/%s", dir, name);
    return at;
}

static struct checkpoint_plan plan_of(const struct config *c, uint32_t n_shards) {
    struct checkpoint_plan plan;
    struct err err = { .status = OK };
    if (checkpoint_plan_open(&plan, c, n_shards, &err) != OK)
        fail_msg("%s", err.text);
    return plan;
}

static struct config small_config(void) {
    struct config c;
    make_small_config(&c);
    return c;
}

/* The small model in dir/name. */
static void make(const char *name, uint32_t n_shards, uint32_t n_threads) {
    const struct config c = small_config();
    struct checkpoint_plan plan = plan_of(&c, n_shards);
    struct err err = { .status = OK };
    const struct checkpoint_make_options o = { .seed = SEED, .n_threads = n_threads };
    if (checkpoint_make(in_dir(name), &plan, &o, &err) != OK)
        fail_msg("%s", err.text);
    checkpoint_plan_close(&plan);
}

static void open_made(struct checkpoint *cp, const char *name) {
    struct err err = { .status = OK };
    const char *dirs[] = { in_dir(name) };
    if (checkpoint_open(cp, dirs, 1, &err) != OK)
        fail_msg("%s", err.text);
}

static uint32_t count_files(const char *path) {
    uint32_t n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*length + 1);
    assert_int_equal(fread(bytes, 1, *length, file), *length);
    fclose(file);
    return bytes;
}

/* --- what is written -------------------------------------------------------------------------- */

static void check_place(const struct checkpoint *cp, const struct weights_make *weights,
                        const struct tensor_place *place, const struct manifest_entry *e) {
    assert_int_equal(place->bytes, e->bytes);
    unsigned char *found = malloc(e->bytes), *expected = malloc(e->bytes);
    assert_int_equal(checkpoint_read(cp, place, 0, found, e->bytes, NULL), OK);
    weights_make_fill(weights, e, 0, expected, e->bytes);
    if (memcmp(found, expected, e->bytes) != 0)
        fail_msg("%s: other bytes in the file", e->name);
    free(found);
    free(expected);
}

/* Every tensor is read back through the checkpoint's own reader, however they are sharded. */
static void made_checkpoint_opens_and_holds_the_weights(void **state) {
    (void)state;
    static const uint32_t shard_counts[] = { 0, 1, 7 };
    const struct config c = small_config();
    struct weights_make *weights;
    assert_int_equal(weights_make_open(&weights, &c, SEED, NULL), OK);
    for (size_t i = 0; i < sizeof shard_counts / sizeof *shard_counts; i++) {
        char name[16];
        snprintf(name, sizeof name, "model%zu", i);
        make(name, shard_counts[i], 3);
        struct checkpoint cp;
        open_made(&cp, name);
        assert_int_equal(cp.draft, DRAFT_MTP);
        assert_string_equal(cp.note, "");
        if (shard_counts[i])
            assert_int_equal(cp.n_files, shard_counts[i]);
        struct manifest_entry e;
        for (uint32_t layer = 0; layer < checkpoint_n_blocks(&cp); layer++) {
            for (int id = 0; id < TENSOR_W1; id++) {
                if (id < TENSOR_ATTN_NORM && layer == 0) {
                    assert_true(manifest_entry(&c, (enum tensor_id)id, 0, 0, &e));
                    check_place(&cp, weights, &cp.global[id], &e);
                } else if (id >= TENSOR_ATTN_NORM &&
                           manifest_entry(&c, (enum tensor_id)id, layer, 0, &e)) {
                    check_place(&cp, weights, &cp.layers[layer][id], &e);
                }
            }
            for (uint32_t expert = 0; expert < c.n_experts; expert++)
                for (int part = 0; part < EXPERT_TENSORS; part++) {
                    manifest_entry(&c, (enum tensor_id)(TENSOR_W1 + part), layer, expert, &e);
                    check_place(&cp, weights, &checkpoint_expert(&cp, layer, expert)->part[part],
                                &e);
                }
        }
        checkpoint_close(&cp);
    }
    weights_make_close(weights);
}

static void same_seed_gives_the_same_bytes_for_any_thread_count(void **state) {
    (void)state;
    static const char *const names[] = { "one", "many" };
    make(names[0], 3, 1);
    make(names[1], 3, 7);
    DIR *d = opendir(in_dir(names[0]));
    assert_non_null(d);
    uint32_t n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        char *bytes[2], path[64];
        size_t length[2];
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "%s/%.40s", names[i], e->d_name);
            bytes[i] = read_file(in_dir(path), &length[i]);
        }
        assert_int_equal(length[0], length[1]);
        assert_memory_equal(bytes[0], bytes[1], length[0]);
        free(bytes[0]);
        free(bytes[1]);
        n++;
    }
    closedir(d);
    assert_int_equal(n, 3 + 2);
}

static enum status write_vocab(const struct config *c, const char *path, struct err *err) {
    FILE *file = fopen(path, "wx");
    if (!file)
        return err_set(err, ERR_IO, "%s: cannot create", path);
    fprintf(file, "%u", c->vocab);
    fclose(file);
    return OK;
}

/* Half a file, then an error. */
static enum status write_badly(const struct config *c, const char *path, struct err *err) {
    assert_int_equal(write_vocab(c, path, err), OK);
    return err_set(err, ERR_IO, "%s: out of ink", path);
}

static void companions_lie_beside_the_shards(void **state) {
    (void)state;
    const struct config c = small_config();
    struct checkpoint_plan plan = plan_of(&c, 1);
    const struct companion_file companions[] = { { "a.json", "{\"a\": 1}", 8, NULL },
                                                 { "empty.json", "", 0, NULL },
                                                 { "vocab.json", NULL, 0, write_vocab } };
    const struct checkpoint_make_options o = { .companions = companions, .n_companions = 3 };
    assert_int_equal(checkpoint_make(in_dir("m"), &plan, &o, NULL), OK);
    static const char *const names[] = { "m/a.json", "m/empty.json", "m/vocab.json" };
    char vocab[16];
    snprintf(vocab, sizeof vocab, "%u", c.vocab);
    const char *const expected[] = { "{\"a\": 1}", "", vocab };
    for (int i = 0; i < 3; i++) {
        size_t length;
        char *bytes = read_file(in_dir(names[i]), &length);
        assert_int_equal(length, strlen(expected[i]));
        assert_memory_equal(bytes, expected[i], length);
        free(bytes);
    }
    assert_int_equal(count_files(in_dir("m")), 3 + 3);
    checkpoint_plan_close(&plan);
}

static void companion_that_cannot_be_written_ends_the_run_and_leaves_nothing(void **state) {
    (void)state;
    const struct config c = small_config();
    struct checkpoint_plan plan = plan_of(&c, 1);
    const struct companion_file bad = { "bad.json", NULL, 0, write_badly };
    const struct checkpoint_make_options o = { .companions = &bad, .n_companions = 1 };
    struct err err = { .status = OK };
    assert_int_equal(checkpoint_make(in_dir("m"), &plan, &o, &err), ERR_IO);
    assert_non_null(strstr(err.text, "out of ink"));
    assert_int_equal(access(in_dir("m"), F_OK), -1);
    checkpoint_plan_close(&plan);
}

/* --- plans ------------------------------------------------------------------------------------ */

static struct config pro(uint32_t first, uint32_t n, enum draft_kind draft) {
    struct config c;
    assert_int_equal(config_preset(&c, "pro", NULL), OK);
    assert_int_equal(config_cut(&c, first, n, draft, NULL), OK);
    return c;
}

static void full_pro_is_planned_as_published(void **state) {
    (void)state;
    const struct config c = pro(0, 61, DRAFT_MTP);
    struct checkpoint_plan plan = plan_of(&c, 0);
    assert_int_equal(plan.n_shards, 64);
    assert_string_equal(plan.shards[0].name, "model-00001-of-00064.safetensors");
    assert_int_equal(plan.shards[0].n_tensors, 1);
    assert_int_equal(plan.tensors[0].id, TENSOR_EMBED);
    for (uint32_t s = 1; s <= 61; s++) {
        const struct planned_tensor *first = &plan.tensors[plan.shards[s].first];
        assert_int_equal(first->layer, s - 1);
        assert_int_equal(first[plan.shards[s].n_tensors - 1].layer, s - 1);
        assert_true(plan.shards[s].bytes > 13.8e9 && plan.shards[s].bytes < 14e9);
    }
    assert_int_equal(plan.tensors[plan.shards[62].first].id, TENSOR_NORM);
    assert_int_equal(plan.tensors[plan.shards[63].first].layer, 61);
    assert_in_range(plan.n_tensors, 144000, 146000);
    checkpoint_plan_close(&plan);
}

/* "31.5 GB with embedding and head". */
static void two_layers_of_pro_take_what_the_help_says(void **state) {
    (void)state;
    const struct config c = pro(3, 2, DRAFT_NONE);
    struct checkpoint_plan plan = plan_of(&c, 0);
    assert_int_equal(plan.n_shards, 4);
    assert_true(plan.bytes > 31.4e9 && plan.bytes < 31.6e9);
    checkpoint_plan_close(&plan);
}

static void shards_are_as_many_as_asked_for_and_alike_in_size(void **state) {
    (void)state;
    const struct config c = pro(3, 3, DRAFT_MTP);
    static const uint32_t counts[] = { 1, 2, 5, 17, 100 };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct checkpoint_plan plan = plan_of(&c, counts[i]);
        assert_int_equal(plan.n_shards, counts[i]);
        uint32_t next = 0;
        for (uint32_t s = 0; s < plan.n_shards; s++) {
            assert_int_equal(plan.shards[s].first, next);
            assert_true(plan.shards[s].n_tensors > 0);
            next += plan.shards[s].n_tensors;
            const double share = (double)plan.bytes / plan.n_shards;
            if (share > 3.8e9) // no tensor is larger than half of that
                assert_true(plan.shards[s].bytes > 0.7 * share &&
                            plan.shards[s].bytes < 1.3 * share);
        }
        assert_int_equal(next, plan.n_tensors);
        checkpoint_plan_close(&plan);
    }
}

static void as_many_shards_as_tensors_hold_one_each_and_more_are_refused(void **state) {
    (void)state;
    const struct config c = small_config();
    struct checkpoint_plan one = plan_of(&c, 1);
    struct checkpoint_plan each = plan_of(&c, one.n_tensors), more;
    for (uint32_t s = 0; s < each.n_shards; s++)
        assert_int_equal(each.shards[s].n_tensors, 1);
    struct err err = { .status = OK };
    assert_int_equal(checkpoint_plan_open(&more, &c, one.n_tensors + 1, &err), ERR_USAGE);
    checkpoint_plan_close(&more);
    checkpoint_plan_close(&each);
    checkpoint_plan_close(&one);
}

/* --- what is refused, and what is left --------------------------------------------------------- */

static enum status try_make(const char *name, struct checkpoint_make_options o, struct err *err) {
    const struct config c = small_config();
    struct checkpoint_plan plan = plan_of(&c, 2);
    *err = (struct err){ .status = OK };
    o.n_threads = 2;
    const enum status status = checkpoint_make(in_dir(name), &plan, &o, err);
    checkpoint_plan_close(&plan);
    return status;
}

static void directory_with_anything_in_it_is_refused_and_left_alone(void **state) {
    (void)state;
    struct err err;
    assert_int_equal(make_file(dir, "notes.txt", "mine", 4, &err), OK);
    assert_int_equal(try_make(".", (struct checkpoint_make_options){ .seed = 1 }, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "notes.txt"));
    assert_int_equal(count_files(dir), 1);
    assert_int_equal(try_make("notes.txt", (struct checkpoint_make_options){ .seed = 1 }, &err),
                     ERR_IO);
    assert_non_null(strstr(err.text, "notes.txt"));
}

static void empty_directory_and_its_missing_parents_are_fine(void **state) {
    (void)state;
    struct err err;
    assert_int_equal(try_make("a//b/c/", (struct checkpoint_make_options){ .seed = 1 }, &err), OK);
    assert_int_equal(count_files(in_dir("a/b/c")), 4);
    mkdir(in_dir("empty"), 0777);
    mkdir(in_dir("empty/lost+found"), 0777); // of a file system of its own
    assert_int_equal(try_make("empty", (struct checkpoint_make_options){ .seed = 1 }, &err), OK);
}

static void what_a_killed_run_left_is_cleared_away(void **state) {
    (void)state;
    struct err err;
    mkdir(in_dir("m"), 0777);
    char *path = strdup(in_dir("m"));
    make_file(path, "model-00001-of-00002.safetensors.mkmodel", "half", 4, &err);
    make_file(path, "model-00009-of-00009.safetensors.mkmodel", "half", 4, &err);
    assert_int_equal(try_make("m", (struct checkpoint_make_options){ .seed = 1 }, &err), OK);
    assert_int_equal(count_files(path), 4);
    free(path);
    struct checkpoint cp;
    open_made(&cp, "m");
    checkpoint_close(&cp);
}

static uint64_t little_space(void *context, const char *path) {
    assert_string_equal(path, in_dir("m"));
    return *(uint64_t *)context;
}

static void too_little_space_is_refused_before_anything_is_written(void **state) {
    (void)state;
    struct err err;
    uint64_t have = 1000000;
    const struct checkpoint_make_options o = { .free_bytes = little_space, .context = &have };
    assert_int_equal(try_make("m", o, &err), ERR_SYSTEM);
    assert_non_null(strstr(err.text, "needs 0.02 GB, has 0.00 GB free"));
    assert_int_equal(access(in_dir("m"), F_OK), -1);
    have = UINT64_MAX;
    assert_int_equal(try_make("m", o, &err), OK);
}

/* Stop after so many calls; -1: look at the directory instead, which must be no checkpoint yet. */
static bool stop_after(void *context, uint64_t done, uint64_t total) {
    int *left = context;
    assert_true(done <= total);
    struct checkpoint cp;
    const char *dirs[] = { in_dir("m") };
    assert_int_not_equal(checkpoint_open(&cp, dirs, 1, NULL), OK);
    checkpoint_close(&cp);
    return *left < 0 || (*left)-- > 0;
}

static void cancelled_run_leaves_nothing(void **state) {
    (void)state;
    struct err err;
    for (int calls = 0; calls < 2; calls++) {
        int left = calls;
        const struct checkpoint_make_options o = { .progress = stop_after, .context = &left };
        assert_int_equal(try_make("m", o, &err), CANCELLED);
        assert_int_equal(access(in_dir("m"), F_OK), -1);
    }
}

static void unfinished_run_is_no_checkpoint(void **state) {
    (void)state;
    struct err err;
    int never = -1;
    const struct checkpoint_make_options o = { .progress = stop_after, .context = &never };
    assert_int_equal(try_make("m", o, &err), OK);
}

/* As on a drive that somebody else fills: files may not grow past a limit, whichever file it is. */
static void failed_write_leaves_nothing_and_names_the_file(void **state) {
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    mkdir(in_dir("m"), 0777);
    static const rlim_t limits[] = { 0, 4096, 65536 };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit small = { .rlim_cur = limits[i], .rlim_max = before.rlim_max };
        struct err err;
        setrlimit(RLIMIT_FSIZE, &small);
        const enum status status =
            try_make("m", (struct checkpoint_make_options){ .seed = 1 }, &err);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(status, ERR_IO);
        assert_non_null(strstr(err.text, "model-0000"));
        assert_non_null(strstr(err.text, strerror(EFBIG)));
        assert_int_equal(count_files(in_dir("m")), 0); // and the directory was there before
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(made_checkpoint_opens_and_holds_the_weights),
        TEST(same_seed_gives_the_same_bytes_for_any_thread_count),
        TEST(companions_lie_beside_the_shards),
        TEST(companion_that_cannot_be_written_ends_the_run_and_leaves_nothing),
        TEST(full_pro_is_planned_as_published),
        TEST(two_layers_of_pro_take_what_the_help_says),
        TEST(shards_are_as_many_as_asked_for_and_alike_in_size),
        TEST(as_many_shards_as_tensors_hold_one_each_and_more_are_refused),
        TEST(directory_with_anything_in_it_is_refused_and_left_alone),
        TEST(empty_directory_and_its_missing_parents_are_fine),
        TEST(what_a_killed_run_left_is_cleared_away),
        TEST(too_little_space_is_refused_before_anything_is_written),
        TEST(cancelled_run_leaves_nothing),
        TEST(unfinished_run_is_no_checkpoint),
        TEST(failed_write_leaves_nothing_and_names_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
