/* The file of a routing trace: what is written is read, whatever ends it; and no file is trusted. */
#include "src/routing_trace.h"
#include "tests/support/make_checkpoint.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ROWS 40

static char *dir, path[512];

static int set_up(void **state) {
    (void)state;
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(path, sizeof path, "%s/trace", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

// Three layers, the first by table, and a draft block.
static struct routing_header header_of(uint32_t n_experts, uint32_t n_chosen) {
    return (struct routing_header){ .n_blocks = 4,
                                    .n_experts = n_experts,
                                    .n_chosen = n_chosen,
                                    .expert_bytes = 35094528,
                                    .kind = { ROUTING_HASH, 0, 0, ROUTING_DRAFT } };
}

static void assert_header(const struct routing_header *got, const struct routing_header *want) {
    assert_int_equal(got->n_blocks, want->n_blocks);
    assert_int_equal(got->n_experts, want->n_experts);
    assert_int_equal(got->n_chosen, want->n_chosen);
    assert_int_equal(got->expert_bytes, want->expert_bytes);
    assert_memory_equal(got->kind, want->kind, sizeof want->kind);
}

// --- steps that are the same whenever they are made ----------------------------------------------

static uint32_t rows_of(uint32_t step) {
    return step % 3 == 0 ? 1 : 1 + step * 7 % MAX_ROWS;
}

static bool has_draft(uint32_t step) {
    return step % 2 == 1;
}

// The k-th of the K that a row chooses: ascending, the largest id among them, some twice.
static int32_t expert_of(const struct routing_header *h, uint32_t step, uint32_t block,
                         uint32_t row, uint32_t k) {
    uint32_t width = h->n_experts / h->n_chosen; // each chooses one of its own range, or its border
    uint32_t id = k * width + (step * 31 + block * 17 + row * 5) % (width + 1);
    return (int32_t)(id < h->n_experts ? id : h->n_experts - 1);
}

static void gather(struct routing_writer *w, const struct routing_header *h, uint32_t step) {
    uint32_t n = rows_of(step), half = n / 2;
    int32_t tokens[MAX_ROWS], experts[MAX_ROWS * CONFIG_MAX_CHOSEN];
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(step * 1000 + i);
    routing_writer_begin(w, n, has_draft(step));
    routing_writer_rows(w, 0, half, 3, step, tokens); // two sequences
    routing_writer_rows(w, half, n - half, 70000, step * 2, tokens + half);
    for (uint32_t block = 0; block < 3u + has_draft(step); block++)
        for (uint32_t again = 0; again < 1 + block % 2; again++) { // a layer that is retried
            for (uint32_t i = 0; i < n * h->n_chosen; i++)
                experts[i] = expert_of(h, step, block, i / h->n_chosen, i % h->n_chosen);
            routing_writer_experts(w, block, experts);
        }
}

static void assert_step(const struct routing_header *h, const struct routing_step *s,
                        uint32_t step) {
    uint32_t n = rows_of(step), half = n / 2;
    assert_int_equal(s->n_rows, n);
    assert_int_equal(s->n_blocks, 3 + has_draft(step));
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(s->sequence[i], i < half ? 3 : 70000);
        assert_int_equal(s->position[i], i < half ? step + i : step * 2 + i - half);
        assert_int_equal(s->token[i], step * 1000 + i);
        for (uint32_t block = 0; block < s->n_blocks; block++)
            for (uint32_t k = 0; k < h->n_chosen; k++)
                assert_int_equal(routing_experts(h, s, block, i)[k],
                                 expert_of(h, step, block, i, k));
    }
}

static struct routing_writer *start(const struct routing_header *h) {
    struct routing_writer *w;
    struct err err = { .status = OK };
    if (routing_writer_open(&w, path, &err) != OK ||
        routing_writer_start(w, h, MAX_ROWS, &err) != OK)
        fail_msg("%s", err.text);
    return w;
}

static void finish(struct routing_writer *w) {
    struct err err = { .status = OK };
    if (routing_writer_finish(w, &err) != OK)
        fail_msg("%s", err.text);
    routing_writer_close(w);
}

static void write_steps(const struct routing_header *h, uint32_t n_steps) {
    struct routing_writer *w = start(h);
    for (uint32_t step = 0; step < n_steps; step++) {
        gather(w, h, step);
        routing_writer_commit(w);
    }
    finish(w);
}

// How many steps there are before it ends with `end`; what it says then is in *err.
static uint32_t read_steps(const struct routing_header *h, enum status end, struct err *err) {
    struct routing_reader *r;
    struct routing_step step;
    enum status status;
    uint32_t n = 0;
    *err = (struct err){ .status = OK };
    if (routing_reader_open(&r, path, err) != OK)
        fail_msg("%s", err->text);
    assert_header(routing_reader_header(r), h);
    while ((status = routing_reader_next(r, &step, err)) == OK)
        assert_step(h, &step, n++);
    assert_int_equal(status, end);
    routing_reader_close(r);
    return n;
}

// The whole file, freed by the caller.
static uint8_t *bytes_of(size_t *n) {
    FILE *file = fopen(path, "rb");
    struct stat st;
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    *n = fread(bytes, 1, (size_t)st.st_size, file);
    assert_int_equal(*n, st.st_size);
    fclose(file);
    return bytes;
}

static void put_file(const void *bytes, size_t n) {
    struct err err = { .status = OK };
    assert_int_equal(make_file(dir, "trace", bytes, n, &err), OK);
}

// --- writing -------------------------------------------------------------------------------------

static void what_is_written_is_read(void **state) {
    (void)state;
    // One byte an id, just one, two, and the most there can be.
    static const uint32_t experts[] = { 6, 256, 257, 384, ROUTING_MAX_EXPERTS };
    struct err err;
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++)
        for (uint32_t chosen = 1; chosen <= 6; chosen += 5) {
            struct routing_header h = header_of(experts[i], chosen);
            write_steps(&h, 20);
            assert_int_equal(read_steps(&h, DONE, &err), 20);
        }
}

static void the_bytes_are_as_documented(void **state) {
    (void)state;
    static const uint8_t want[] = {
        's',  'l',  'r',  'o',  'u',  't', 'e',  '\n',
        1,    0,    0,    0, // version
        2,    0,    0,    0,    0x2C, 1,   0,    0,
        2,    0,    0,    0,                        // 2 blocks, 300 experts, 2 chosen
        0x78, 0x56, 0x34, 0x12, 1,    0,   0,    0, // bytes of an expert
        1,    0,                                    // by table, by score
        2,    0,    0,    0,    2,    0,   0,    0, // 2 rows, 2 blocks
        0,    0,    0,    0,    5,    0,   0,    0,
        0x39, 0x30, 0,    0, // sequence 0, position 5, token 12345
        9,    0,    0,    0,    0,    1,   0,    0,
        0,    0,    0,    0,                        // sequence 9, position 256, token 0
        1,    0,    2,    0,    3,    0,   0x2B, 1, // block 0: 1 2, 3 299
        0,    0,    0,    1,    7,    0,   7,    0  // block 1: 0 256, 7 7
    };
    struct routing_header h = { .n_blocks = 2,
                                .n_experts = 300,
                                .n_chosen = 2,
                                .expert_bytes = 0x112345678,
                                .kind = { ROUTING_HASH, 0 } };
    struct routing_writer *w = start(&h);
    routing_writer_begin(w, 2, false);
    routing_writer_rows(w, 0, 1, 0, 5, (const int32_t[]){ 12345 });
    routing_writer_rows(w, 1, 1, 9, 256, (const int32_t[]){ 0 });
    routing_writer_experts(w, 0, (const int32_t[]){ 1, 2, 3, 299 });
    routing_writer_experts(w, 1, (const int32_t[]){ 0, 256, 7, 7 });
    routing_writer_commit(w);
    finish(w);
    size_t n;
    uint8_t *bytes = bytes_of(&n);
    assert_int_equal(n, sizeof want);
    assert_memory_equal(bytes, want, n);
    free(bytes);
}

static void the_header_is_the_model_s(void **state) {
    (void)state;
    struct config c = { .n_layers = 5, .n_experts = 6, .n_chosen = 2, .n_hash_layers = 2 };
    struct routing_header h;
    routing_header_init(&h, &c, 6, 77);
    struct routing_header want = { .n_blocks = 6,
                                   .n_experts = 6,
                                   .n_chosen = 2,
                                   .expert_bytes = 77,
                                   .kind = { 1, 1, 0, 0, 0, 2 } };
    assert_header(&h, &want);
    assert_int_equal(routing_n_trunk(&h), 5);
    routing_header_init(&h, &c, 5, 77);
    assert_int_equal(routing_n_trunk(&h), 5);
}

static void abandoned_step_leaves_nothing(void **state) {
    (void)state;
    struct routing_header h = header_of(384, 6);
    struct err err;
    struct routing_writer *w = start(&h);
    gather(w, &h, 0);
    routing_writer_commit(w);
    gather(w, &h, 5);              // never committed
    routing_writer_begin(w, 9, 1); // nor this one, given up before its first layer
    gather(w, &h, 1);
    routing_writer_commit(w);
    gather(w, &h, 7);
    finish(w);
    assert_int_equal(read_steps(&h, DONE, &err), 2);
}

// A run that is killed between two steps leaves what a finished one does.
static void the_file_is_whole_after_each_step(void **state) {
    (void)state;
    struct routing_header h = header_of(40, 3);
    struct err err;
    struct routing_writer *w = start(&h);
    for (uint32_t step = 0; step < 9; step++) {
        assert_int_equal(read_steps(&h, DONE, &err), step);
        gather(w, &h, step);
        routing_writer_commit(w);
    }
    finish(w);
}

static void an_old_trace_is_kept_until_there_is_a_new_one(void **state) {
    (void)state;
    struct routing_header h = header_of(6, 2);
    struct err err = { .status = OK };
    struct routing_writer *w;
    write_steps(&h, 7);
    assert_int_equal(routing_writer_open(&w, path, &err), OK); // and then no model is found
    routing_writer_close(w);
    assert_int_equal(read_steps(&h, DONE, &err), 7);
    write_steps(&h, 2); // shorter: nothing of the old one is left behind it
    assert_int_equal(read_steps(&h, DONE, &err), 2);
}

static void a_file_that_nothing_came_into_is_removed(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct routing_writer *w;
    assert_int_equal(routing_writer_open(&w, path, &err), OK);
    assert_int_equal(access(path, F_OK), 0);
    routing_writer_close(w);
    assert_int_equal(access(path, F_OK), -1);
    routing_writer_close(NULL);
}

static void a_path_that_cannot_be_is_refused_at_once(void **state) {
    (void)state;
    char name[600];
    struct routing_writer *w;
    struct err err = { .status = OK };
    snprintf(name, sizeof name, "%s/no/trace", dir);
    assert_int_equal(routing_writer_open(&w, name, &err), ERR_IO);
    assert_null(w);
    assert_non_null(strstr(err.text, name));
    err_clear(&err);
    assert_int_equal(routing_writer_open(&w, dir, &err), ERR_IO);
    assert_null(w);
}

// The disk is full at every byte: the file ends with a whole step, and the error comes at the end.
static void a_full_disk_ends_the_file_after_a_whole_step(void **state) {
    (void)state;
    struct routing_header h = header_of(300, 2);
    struct err err;
    struct rlimit no_limit, limit;
    size_t whole;
    write_steps(&h, 5);
    free(bytes_of(&whole));
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &no_limit), 0);
    for (size_t room = 36; room < whole; room += 1 + room % 5) {
        struct err end = { .status = OK };
        struct routing_writer *w = start(&h);
        limit = (struct rlimit){ room, no_limit.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        for (uint32_t step = 0; step < 5;
             step++) { // it goes on, with all steps after the error too
            gather(w, &h, step);
            routing_writer_commit(w);
        }
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &no_limit), 0);
        assert_int_equal(routing_writer_finish(w, &end), ERR_IO);
        routing_writer_close(w);
        assert_non_null(strstr(end.text, path));
        assert_non_null(strstr(end.text, "cannot be written at byte"));
        uint32_t n = read_steps(&h, DONE, &err);
        char said[40];
        snprintf(said, sizeof said, ": %u steps are recorded", n);
        assert_non_null(strstr(end.text, said));
        assert_true(n < 5);
    }
}

static void a_full_disk_is_told_by_start_if_the_header_does_not_fit(void **state) {
    (void)state;
    struct routing_header h = header_of(6, 2);
    struct err err = { .status = OK }, end = { .status = OK };
    struct routing_writer *w;
    if (access("/dev/full", W_OK) != 0)
        skip();
    assert_int_equal(routing_writer_open(&w, "/dev/full", &err), OK);
    assert_int_equal(routing_writer_start(w, &h, MAX_ROWS, &err), ERR_IO);
    assert_non_null(strstr(err.text, "/dev/full: cannot be written at byte 0: No space left"));
    assert_int_equal(routing_writer_finish(w, &end), OK); // it is told once
    routing_writer_close(w);
    assert_int_equal(access("/dev/full", F_OK), 0);
}

// --- reading -------------------------------------------------------------------------------------

static void a_file_cut_anywhere_gives_its_whole_steps(void **state) {
    (void)state;
    struct routing_header h = header_of(300, 3);
    struct routing_reader *r;
    struct err err;
    size_t n;
    uint64_t begin[6] = { 0 };
    write_steps(&h, 5);
    uint8_t *bytes = bytes_of(&n);
    struct routing_step step;
    err = (struct err){ .status = OK };
    assert_int_equal(routing_reader_open(&r, path, &err), OK);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(routing_reader_next(r, &step, &err), OK);
        begin[i] = step.offset;
    }
    routing_reader_close(r);
    begin[5] = n;
    assert_int_equal(begin[0], 36);
    for (size_t cut = 0; cut < begin[0]; cut++) {
        put_file(bytes, cut);
        err = (struct err){ .status = OK };
        assert_int_equal(routing_reader_open(&r, path, &err), ERR_TRUNCATED);
        assert_null(r);
        assert_non_null(strstr(err.text, "ends inside its header"));
    }
    for (size_t cut = begin[0]; cut <= n; cut++) {
        put_file(bytes, cut);
        uint32_t whole = 0;
        while (whole < 5 && begin[whole + 1] <= cut)
            whole++;
        bool is_whole = begin[whole] == cut;
        assert_int_equal(read_steps(&h, is_whole ? DONE : ERR_TRUNCATED, &err), whole);
        if (is_whole)
            continue;
        char said[600], count[60];
        snprintf(said, sizeof said, "%s: byte %llu: the last step is cut short, %llu of", path,
                 (unsigned long long)begin[whole], (unsigned long long)(cut - begin[whole]));
        snprintf(count, sizeof count, "the %u before it are whole", whole);
        assert_non_null(strstr(err.text, said));
        assert_non_null(strstr(err.text, count));
    }
    free(bytes);
}

// Some bytes of a trace are others: refused with the place and the reason.
static void damage_is_refused_with_its_place(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
        const char *text;
    } cases[] = {
        { 0, 'S', "byte 0: not a routing trace" },
        { 8, 2, "byte 8: a routing trace of version 2, not of 1" },
        { 12, 0, "byte 12: 0 blocks" },
        { 12, 257, "byte 12: 257 blocks" },
        { 12, UINT32_MAX, "byte 12: 4294967295 blocks" },
        { 16, 0, "byte 16: 0 experts" },
        { 16, 65537, "byte 16: 65537 experts" },
        { 20, 0, "byte 20: 0 experts chosen of 300" },
        { 20, 33, "byte 20: 33 experts chosen of 300" },
        { 32, 4, "byte 32: block 0 cannot be of kind 4" },          // not known
        { 32, 2, "byte 32: block 0 cannot be of kind 2" },          // a draft of nothing
        { 32, 0x00000200, "byte 34: block 2 cannot be of kind 0" }, // trunk after draft
        { 36, 0, "byte 36: a step of 0 rows" },
        { 36, ROUTING_MAX_ROWS + 1, "byte 36: a step of 1048577 rows" },
        { 40, 0, "byte 40: a step of 0 blocks: the model has 4" },
        { 40, 2, "byte 40: a step of 2 blocks: the model has 4" }, // neither 3 nor 4
        { 40, 5, "byte 40: a step of 5 blocks: the model has 4" },
        { 56, 300, "byte 56: block 0: expert 300 of 300" }, // of 2 each
        { 56, 65535, "byte 56: block 0: expert 65535 of 300" },
        { 64, 200 | 199 << 16, "byte 66: block 1: expert 199 comes after 200" },
    };
    struct routing_header h = header_of(300, 3);
    size_t n;
    write_steps(&h, 4);
    uint8_t *bytes = bytes_of(&n), *damaged = malloc(n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct routing_reader *r;
        struct routing_step step;
        struct err err = { .status = OK };
        memcpy(damaged, bytes, n);
        for (uint32_t k = 0; k < 4; k++)
            damaged[cases[i].at + k] = (uint8_t)(cases[i].value >> (8 * k));
        put_file(damaged, n);
        enum status status = routing_reader_open(&r, path, &err);
        while (status == OK)
            status = routing_reader_next(r, &step, &err);
        assert_int_equal(status, ERR_INPUT);
        if (!strstr(err.text, cases[i].text) || !strstr(err.text, path))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].text);
        routing_reader_close(r);
    }
    free(damaged);
    free(bytes);
}

// A small file that claims to be huge costs no memory to find out about.
static void a_step_larger_than_the_file_is_cut_short(void **state) {
    (void)state;
    struct routing_header h = { .n_blocks = CONFIG_MAX_LAYERS,
                                .n_experts = ROUTING_MAX_EXPERTS,
                                .n_chosen = CONFIG_MAX_CHOSEN };
    struct err err;
    size_t n;
    write_steps(&h, 0);
    uint8_t *bytes = bytes_of(&n);
    uint8_t *longer = calloc(1, n + 8);
    memcpy(longer, bytes, n);
    longer[n + 2] = ROUTING_MAX_ROWS >> 16;
    longer[n + 5] = 1; // 256 blocks
    put_file(longer, n + 8);
    assert_int_equal(read_steps(&h, ERR_TRUNCATED, &err), 0);
    assert_non_null(strstr(err.text, "8 of its 17192452104 bytes"));
    free(longer);
    free(bytes);
}

static void what_is_no_trace_is_refused(void **state) {
    (void)state;
    struct routing_reader *r;
    struct err err = { .status = OK };
    assert_int_equal(routing_reader_open(&r, path, &err), ERR_MISSING);
    assert_null(r);
    err_clear(&err);
    assert_int_equal(routing_reader_open(&r, dir, &err), ERR_INPUT);
    err_clear(&err);
    put_file("{}", 2); // shorter than a header, and yet known to be none
    assert_int_equal(routing_reader_open(&r, path, &err), ERR_INPUT);
    assert_non_null(strstr(err.text, "not a routing trace"));
    routing_reader_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        TEST(what_is_written_is_read),
        TEST(the_bytes_are_as_documented),
        TEST(the_header_is_the_model_s),
        TEST(abandoned_step_leaves_nothing),
        TEST(the_file_is_whole_after_each_step),
        TEST(an_old_trace_is_kept_until_there_is_a_new_one),
        TEST(a_file_that_nothing_came_into_is_removed),
        TEST(a_path_that_cannot_be_is_refused_at_once),
        TEST(a_full_disk_ends_the_file_after_a_whole_step),
        TEST(a_full_disk_is_told_by_start_if_the_header_does_not_fit),
        TEST(a_file_cut_anywhere_gives_its_whole_steps),
        TEST(damage_is_refused_with_its_place),
        TEST(a_step_larger_than_the_file_is_cut_short),
        TEST(what_is_no_trace_is_refused),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
