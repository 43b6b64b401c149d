#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/checkpoint/config_make.h"
#include "tests/support/checkpoint_fixture.h"

// What is malformed, or contradicts itself, is in test_checkpoint_faults.c.

/* This program's pread, in place of the C library's: counts, and goes wrong when told to. */
static struct {
    int eintr;       /* this many calls first fail with EINTR */
    size_t at_most;  /* bytes a call gives, 0: all */
    int eio_at_call; /* 1: the first call fails with EIO, … */
    int calls;
    uint64_t bytes; /* read in all */
} disk;

ssize_t pread(int fd, void *buffer, size_t bytes, off_t offset);
ssize_t pread(int fd, void *buffer, size_t bytes, off_t offset) {
    disk.calls++;
    if (disk.eintr > 0) {
        disk.eintr--;
        errno = EINTR;
        return -1;
    }
    if (disk.calls == disk.eio_at_call) {
        errno = EIO;
        return -1;
    }
    if (disk.at_most && bytes > disk.at_most)
        bytes = disk.at_most;
    const ssize_t got = syscall(SYS_pread64, fd, buffer, bytes, offset);
    disk.bytes += got > 0 ? (uint64_t)got : 0;
    return got;
}

/* ---- what is accepted ---- */

static void tensors_are_found_however_they_are_sharded(void **state) {
    (void)state;
    const struct make_options options[] = {
        { .n_shards = 0 },
        { .n_shards = 1 },
        { .n_shards = 7 },
        { .layer_per_shard = true },
        { .n_shards = 3, .without_index = true },
        { .n_shards = 3, .gap = 13 },
    };
    const uint32_t n_files[] = { 1, 1, 7, 7, 3, 3 };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        fixture_make_anew(&options[i]);
        fixture_open_and_compare();
        assert_int_equal(fixture.cp.n_files, n_files[i]);
        assert_int_equal(fixture.cp.draft, DRAFT_MTP);
        assert_int_equal(fixture.cp.n_draft_blocks, 1);
        assert_int_equal(checkpoint_n_blocks(&fixture.cp), 5);
        assert_int_equal(fixture.cp.n_ignored, 0);
        assert_string_equal(fixture.cp.note, "");
        checkpoint_close(&fixture.cp);
    }
}

static void every_spelling_gives_the_same_bytes(void **state) {
    (void)state;
    for (enum make_names names = NAMES_PUBLISHED; names <= NAMES_V3; names++) {
        for (uint32_t n_shards = 0; n_shards <= 2; n_shards += 2) {
            const struct make_options options = { .names = names, .n_shards = n_shards };
            fixture_make_anew(&options);
            fixture_open_and_compare();
            checkpoint_close(&fixture.cp);
        }
    }
}

static void other_types_of_the_same_values_are_accepted(void **state) {
    (void)state;
    const struct make_options u8 = { .u8 = true };
    fixture_make(&u8);
    fixture_open_and_compare();
    assert_int_equal(fixture.cp.experts[0].part[0].dtype, DTYPE_I8);
    assert_int_equal(fixture.cp.experts[0].part[1].dtype, DTYPE_F8_E8M0);
    checkpoint_close(&fixture.cp);

    const struct make_options i32 = { .i32_table = true };
    fixture_make(&i32);
    fixture_open_and_compare();
    assert_int_equal(fixture.cp.layers[0][TENSOR_GATE_TABLE].dtype, DTYPE_I32);
    checkpoint_close(&fixture.cp);

    const struct make_options f32 = { .f32_scales = true };
    fixture_make(&f32);
    fixture_open_and_compare();
    assert_int_equal(fixture.cp.layers[0][TENSOR_WQ_A_SCALE].dtype, DTYPE_F32);
    checkpoint_close(&fixture.cp);
}

static void base_experts_are_fp8(void **state) {
    (void)state;
    fixture.small.expert_format = EXPERT_FP8;
    const struct make_options options = { .n_shards = 2 };
    fixture_make(&options);
    fixture_open_and_compare();
    const struct expert_place *expert = checkpoint_expert(&fixture.cp, 3, 4);
    assert_int_equal(expert->part[2].dtype, DTYPE_F8_E4M3);
    assert_int_equal(expert->part[2].bytes, 128 * 128);
    assert_int_equal(expert->part[3].dtype, DTYPE_F32);
    assert_int_equal(expert->part[3].bytes, 4);
    checkpoint_close(&fixture.cp);
}

static void opening_reads_no_weight(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 3 };
    fixture_make(&options);
    memset(&disk, 0, sizeof disk);
    fixture_open();
    uint64_t headers = 0;
    for (uint32_t i = 0; i < fixture.cp.n_files; i++) {
        uint64_t length;
        assert_int_equal(syscall(SYS_pread64, fixture.cp.files[i].fd, &length, 8, 0), 8);
        headers += 8 + length;
    }
    assert_int_equal(disk.bytes, headers);
    checkpoint_close(&fixture.cp);
}

static void shards_may_lie_in_several_directories(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 4 };
    fixture_make(&options);
    char *second = make_temp_dir(), to[4096];
    // The first directory that has a shard gives it: a bad copy in the second is not looked at.
    make_file(second, "model-00001-of-00004.safetensors", "bad", 3, &fixture.err);
    for (int i = 2; i <= 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-00004.safetensors", i);
        snprintf(to, sizeof to, "%s/%s", second, name);
        assert_int_equal(rename(fixture_path(name), to), 0);
    }
    const char *const dirs[] = { fixture.dir, second };
    assert_int_equal(checkpoint_open(&fixture.cp, dirs, 2, &fixture.err), OK);
    assert_true(fixture_compare() > 0);
    assert_int_equal(fixture.cp.n_dirs, 2);
    assert_string_equal(fixture.cp.files[2].path, to);
    checkpoint_close(&fixture.cp);

    // config.json and the index may be in the second, and there may be no index at all.
    const char *const swapped[] = { second, fixture.dir };
    assert_int_equal(unlink(to), 0);
    assert_int_equal(checkpoint_open(&fixture.cp, swapped, 2, &fixture.err), ERR_MISSING);
    assert_non_null(strstr(fixture.err.text, "missing model-00003-of-00004.safetensors"));
    assert_non_null(strstr(fixture.err.text, "truncated model-00001-of-00004.safetensors"));
    checkpoint_close(&fixture.cp);
    unlink(fixture_path("model.safetensors.index.json"));
    err_clear(&fixture.err);
    assert_int_equal(checkpoint_open(&fixture.cp, swapped, 2, &fixture.err), ERR_MISSING);
    assert_non_null(strstr(fixture.err.text, "missing model-00003-of-00004.safetensors"));
    checkpoint_close(&fixture.cp);
    remove_temp_dir(second);
}

static void numbers_of_other_widths_are_read_without_an_index(void **state) {
    (void)state;
    char to[4096];
    const struct make_options options = { .n_shards = 2, .without_index = true };
    fixture_make(&options);
    for (int i = 1; i <= 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-00002.safetensors", i);
        snprintf(to, sizeof to, "%s/model-%03d-of-000002.safetensors", fixture.dir, i);
        assert_int_equal(rename(fixture_path(name), to), 0);
    }
    fixture_open_and_compare();
    checkpoint_close(&fixture.cp);
}

/* ---- what is missing ---- */

struct nth {
    uint64_t left, n;
    char name[MANIFEST_NAME_BYTES];
};

static bool leave_nth_out(const struct manifest_entry *entry, void *context) {
    struct nth *nth = context;
    if (nth->n++ != nth->left)
        return false;
    memcpy(nth->name, entry->name, sizeof nth->name);
    return true;
}

static void each_tensor_is_missed_by_name(void **state) {
    (void)state;
    fixture.small.n_experts = 2;
    for (uint64_t left = 0;; left++) {
        struct nth nth = { .left = left };
        const struct make_options options = { .n_shards = left % 2 ? 2 : 0,
                                              .sparse = true,
                                              .leave_out = leave_nth_out,
                                              .context = &nth };
        fixture_make(&options);
        if (nth.n <= left)
            break;
        fixture_refused(ERR_MISSING, fixture.dir, "no shard holds ", nth.name);
        unlink(fixture_path("model.safetensors"));
        unlink(fixture_path("model.safetensors.index.json"));
        assert_true(nth.n > 200);
    }
    fixture_open(); // nothing left out
    checkpoint_close(&fixture.cp);
}

static bool leave_scales_out(const struct manifest_entry *entry, void *context) {
    (void)context;
    return manifest_is_scale(entry->id);
}

static void many_missing_tensors_are_counted(void **state) {
    (void)state;
    const struct make_options options = { .sparse = true, .leave_out = leave_scales_out };
    fixture_make(&options);
    fixture_refused(ERR_MISSING, "layers.0.attn.wq_a.scale, layers.0.attn.wq_b.scale", " and ",
                    " more");
}

static void remove_key(json_t *object, void *key) {
    assert_int_equal(json_object_del(object, key), 0);
}

static void a_tensor_that_its_shard_lacks_is_named_with_it(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 3 };
    fixture_make(&options);
    make_edited(fixture_path("model-00002-of-00003.safetensors"), remove_key,
                "layers.2.attn.wq_a.weight", &fixture.err);
    fixture_refused(ERR_MISSING, "model-00002-of-00003.safetensors", "layers.2.attn.wq_a.weight");
}

static void missing_and_short_shards_are_listed(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 5 };
    fixture_make(&options);
    unlink(fixture_path("model-00002-of-00005.safetensors"));
    fixture_refused(ERR_MISSING, fixture.dir, "missing model-00002-of-00005.safetensors");
    unlink(fixture_path("model-00005-of-00005.safetensors"));
    fixture_refused(ERR_MISSING,
                    "missing model-00002-of-00005.safetensors, model-00005-of-00005.safetensors");
    struct stat st;
    const char *third = fixture_path("model-00003-of-00005.safetensors");
    assert_int_equal(stat(third, &st), 0);
    assert_int_equal(truncate(third, st.st_size - 11), 0);
    fixture_refused(ERR_MISSING, "model-00005-of-00005.safetensors; truncated ",
                    "model-00003-of-00005.safetensors (11 bytes short)");
}

static void short_shards_are_listed(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 4 };
    struct stat st;
    fixture_make(&options);
    const char *third = fixture_path("model-00003-of-00004.safetensors");
    assert_int_equal(stat(third, &st), 0);
    assert_int_equal(truncate(third, st.st_size - 1), 0);
    fixture_refused(ERR_TRUNCATED, "incomplete download",
                    "model-00003-of-00004.safetensors (1 bytes short)");
    truncate(fixture_path("model-00001-of-00004.safetensors"), 5000);
    truncate(fixture_path("model-00004-of-00004.safetensors"), 0);
    fixture_refused(ERR_TRUNCATED, "model-00001-of-00004.safetensors (not even its header), ",
                    "model-00003-of-00004.safetensors (1 bytes short), ",
                    "model-00004-of-00004.safetensors (not even its header)");
}

static void more_than_eight_missing_shards_are_counted(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 12, .sparse = true };
    fixture_make(&options);
    for (int i = 1; i <= 11; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-00012.safetensors", i);
        unlink(fixture_path(name));
    }
    fixture_refused(ERR_MISSING, "model-00008-of-00012.safetensors and 3 more");
    unlink(fixture_path("model.safetensors.index.json"));
    fixture_refused(ERR_MISSING, "model-00008-of-00012.safetensors and 3 more");
    unlink(fixture_path("model-00012-of-00012.safetensors"));
    fixture_refused(ERR_MISSING, "not a checkpoint's directory");
}

static void what_is_no_checkpoint_is_refused(void **state) {
    (void)state;
    fixture_refused(ERR_MISSING, fixture.dir, "no config.json");
    char *text = config_text(&fixture.small);
    make_file(fixture.dir, "config.json", text, strlen(text), &fixture.err);
    free(text);
    fixture_refused(ERR_MISSING, fixture.dir, "no model.safetensors.index.json and no shards");
    make_file(fixture.dir, "config.json", "{}", 2, &fixture.err);
    fixture_refused(ERR_INPUT, fixture_path("config.json"));
    const char *const dirs[] = { fixture.dir, "/no/such/place" };
    err_clear(&fixture.err);
    assert_int_equal(checkpoint_open(&fixture.cp, dirs, 2, &fixture.err), ERR_MISSING);
    assert_non_null(strstr(fixture.err.text, "/no/such/place: no such directory"));
    checkpoint_close(&fixture.cp);
    checkpoint_close(&fixture.cp); // closing twice is harmless
}

static void shards_that_are_no_files_are_refused(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 2 };
    fixture_make(&options);
    const char *second = fixture_path("model-00002-of-00002.safetensors");
    unlink(second);
    assert_int_equal(mkfifo(second, 0600), 0);
    fixture_refused(ERR_INPUT, second, "not a regular file"); // and nobody waited for a writer
    unlink(second);
    assert_int_equal(mkdir(second, 0700), 0);
    fixture_refused(ERR_INPUT, second, "not a regular file");
}

static void shards_of_two_checkpoints_without_an_index_are_refused(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 2, .without_index = true };
    fixture_make(&options);
    make_file(fixture.dir, "model-00001-of-00003.safetensors", "", 0, &fixture.err);
    make_file(fixture.dir, "model-00001-of-00003.safetensors.part", "", 0, &fixture.err);
    fixture_refused(ERR_INPUT, "shards of two checkpoints", "-of-00002", "-of-00003");
    unlink(fixture_path("model-00001-of-00003.safetensors"));
    fixture_open_and_compare();
    checkpoint_close(&fixture.cp);
    for (int i = 1; i <= 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-00002.safetensors", i);
        unlink(fixture_path(name));
    }
    make_file(fixture.dir, "model-00001-of-99999.safetensors", "", 0, &fixture.err);
    fixture_refused(ERR_INPUT, "99999 shards are more than");
}

/* ---- draft modules ---- */

static void a_checkpoint_may_have_no_draft(void **state) {
    (void)state;
    struct config full = fixture.small;
    fixture.small.draft = DRAFT_NONE;
    const struct make_options options = { .n_shards = 2, .sparse = true };
    fixture_make(&options);
    // The config announces a block that the tensors do not have.
    fixture_open();
    assert_int_equal(fixture.cp.draft, DRAFT_NONE);
    assert_int_equal(fixture.cp.config.draft, DRAFT_NONE);
    assert_int_equal(fixture.cp.config.n_drafts, 0);
    assert_int_equal(checkpoint_n_blocks(&fixture.cp), 4);
    assert_non_null(strstr(fixture.cp.note, "no draft block"));
    checkpoint_close(&fixture.cp);

    fixture.small.n_drafts = 0; // it does not announce one
    fixture_make(&options);
    fixture_open();
    assert_int_equal(fixture.cp.draft, DRAFT_NONE);
    assert_string_equal(fixture.cp.note, "");
    checkpoint_close(&fixture.cp);

    char *text = config_text(&fixture.small); // and the other way round: the tensors decide
    fixture.small = full;
    fixture_make(&options);
    make_file(fixture.dir, "config.json", text, strlen(text), &fixture.err);
    free(text);
    fixture_open();
    assert_int_equal(fixture.cp.draft, DRAFT_MTP);
    assert_int_equal(fixture.cp.config.draft, DRAFT_MTP);
    assert_int_equal(fixture.cp.config.n_drafts, 1);
    assert_int_equal(checkpoint_n_blocks(&fixture.cp), 5);
    checkpoint_close(&fixture.cp);
}

static bool leave_draft_out_but(const struct manifest_entry *entry, void *kept) {
    return strncmp(entry->name, "mtp.", 4) == 0 && strcmp(entry->name, kept) != 0;
}

static void a_draft_block_is_complete_or_absent(void **state) {
    (void)state;
    const char *const kept[] = { "mtp.0.attn_norm.weight", "mtp.0.e_proj.weight",
                                 "mtp.0.ffn.experts.4.w3.scale" };
    for (int i = 0; i < 3; i++) {
        const struct make_options options = { .sparse = true,
                                              .leave_out = leave_draft_out_but,
                                              .context = (void *)kept[i] };
        fixture_make(&options);
        fixture_refused(ERR_MISSING, "no shard holds mtp.0.", " more");
    }
}

static void copies_of_embedding_and_head_are_ignored(void **state) {
    (void)state;
    const struct manifest_entry extra[] = {
        fixture_entry("mtp.0.emb.tok_emb.weight", DTYPE_BF16, 64, 128),
        fixture_entry("mtp.0.head.weight", DTYPE_BF16, 64, 128),
    };
    const struct make_options options = { .n_shards = 2, .extra = extra, .n_extra = 2 };
    fixture_make(&options);
    fixture_open_and_compare();
    assert_int_equal(fixture.cp.draft, DRAFT_MTP);
    assert_int_equal(fixture.cp.n_ignored, 2);
    assert_int_equal(fixture.cp.ignored_bytes, 2 * 64 * 128 * 2);
    assert_string_equal(fixture.cp.note, "");
    checkpoint_close(&fixture.cp);

    fixture.small.draft = DRAFT_NONE; // alone they are no draft block
    fixture_make(&options);
    fixture_open();
    assert_int_equal(fixture.cp.draft, DRAFT_NONE);
    checkpoint_close(&fixture.cp);
}

static enum status count(void *context, const struct manifest_entry *entry, struct err *err) {
    (void)entry;
    (void)err;
    ++*(uint64_t *)context;
    return OK;
}

static bool leave_mtp_marks_out(const struct manifest_entry *entry, void *context) {
    (void)context;
    return entry->id >= TENSOR_MTP_E_PROJ && entry->id <= TENSOR_MTP_HNORM;
}

static void dspark_stages_are_recognized_and_left_alone(void **state) {
    (void)state;
    const struct manifest_entry extra[] = {
        fixture_entry("mtp.0.main_proj.weight", DTYPE_F8_E4M3, 128, 384),
        fixture_entry("mtp.0.main_proj.scale", DTYPE_F8_E8M0, 1, 3),
        fixture_entry("mtp.2.markov_head.markov_w1.weight", DTYPE_BF16, 64, 8),
        fixture_entry("mtp.2.confidence_head.proj.weight", DTYPE_BF16, 1, 136),
    };
    struct make_options options = {
        .layer_per_shard = true, .sparse = true, .extra = extra, .n_extra = 4
    };
    fixture.small.n_drafts = 3;
    options.leave_out = leave_mtp_marks_out;
    fixture_make(&options);
    fixture_open();
    assert_int_equal(fixture.cp.draft, DRAFT_DSPARK);
    assert_int_equal(fixture.cp.config.draft, DRAFT_DSPARK);
    assert_int_equal(fixture.cp.n_draft_blocks, 3);
    assert_int_equal(checkpoint_n_blocks(&fixture.cp), 4);
    assert_non_null(strstr(fixture.cp.note, "DSpark draft module (3 stages, "));
    // Nothing of them is in the tables: the trunk's tensors are all that there is.
    assert_int_equal(fixture.cp.layers[4][TENSOR_WQ_A].bytes, 0);
    assert_int_equal(checkpoint_expert(&fixture.cp, 6, 4)->part[5].bytes, 0);
    struct config trunk = fixture.small;
    trunk.draft = DRAFT_NONE;
    uint64_t n = 0;
    assert_int_equal(manifest_walk(&trunk, count, &n, NULL), OK);
    assert_int_equal(fixture.cp.n_tensors - fixture.cp.n_ignored, n);
    checkpoint_close(&fixture.cp);

    // What is wrong with a stage's shapes is the draft module's business, not ours yet …
    fixture_edit("model-00008-of-00010.safetensors", "mtp.1.attn_norm.weight", "U8", "[256]");
    fixture_open();
    checkpoint_close(&fixture.cp);
    // … but the header is one like any other.
    fixture_edit("model-00008-of-00010.safetensors", "mtp.1.attn_norm.weight", "U8", "[257]");
    fixture_refused(ERR_INPUT, "model-00008-of-00010.safetensors", "mtp.1.attn_norm.weight");

    options.leave_out = NULL; // marks of both
    fixture_make(&options);
    fixture_refused(ERR_INPUT, "MTP block", "DSpark");
}

/* ---- reading ---- */

static void tensors_are_read_through_short_reads_and_eintr(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 2, .gap = 5 };
    fixture_make(&options);
    for (size_t at_most = 0; at_most <= 4097; at_most += 241) {
        fixture_open();
        disk.at_most = at_most;
        disk.eintr = 3;
        assert_int_equal(fixture_compare(), fixture.cp.n_tensors);
        checkpoint_close(&fixture.cp);
        memset(&disk, 0, sizeof disk);
    }
}

static void a_part_of_a_tensor_is_read(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 2 };
    fixture_make(&options);
    fixture_open();
    const struct tensor_place *embed = &fixture.cp.global[TENSOR_EMBED];
    uint8_t all[64 * 256], row[256];
    assert_int_equal(embed->bytes, sizeof all);
    assert_int_equal(checkpoint_read(&fixture.cp, embed, 0, all, sizeof all, NULL), OK);
    for (uint64_t token = 0; token < 64; token++) {
        assert_int_equal(checkpoint_read(&fixture.cp, embed, token * 256, row, 256, NULL), OK);
        assert_memory_equal(row, all + token * 256, 256);
    }
    assert_int_equal(checkpoint_read(&fixture.cp, embed, embed->bytes, row, 0, NULL), OK);
    checkpoint_close(&fixture.cp);
}

static void a_file_cut_while_open_is_truncated_at_a_byte(void **state) {
    (void)state;
    const struct make_options options = { 0 };
    fixture_make(&options);
    fixture_open();
    const struct tensor_place *place = &fixture.cp.layers[3][TENSOR_SHARED_W3];
    uint8_t *bytes = malloc(place->bytes);
    char text[64];
    assert_int_equal(truncate(fixture_path("model.safetensors"), (off_t)(place->offset + 100)), 0);
    assert_int_equal(checkpoint_read(&fixture.cp, place, 0, bytes, place->bytes, &fixture.err),
                     ERR_TRUNCATED);
    snprintf(text, sizeof text, "ends at byte %llu", (unsigned long long)place->offset + 100);
    assert_non_null(strstr(fixture.err.text, fixture_path("model.safetensors")));
    assert_non_null(strstr(fixture.err.text, text));
    assert_int_equal(checkpoint_read(&fixture.cp, place, 0, bytes, 100, NULL), OK);
    free(bytes);
    checkpoint_close(&fixture.cp);
}

static void an_error_of_the_disk_names_file_and_offset(void **state) {
    (void)state;
    const struct make_options options = { 0 };
    fixture_make(&options);
    fixture_open();
    const struct tensor_place *place = &fixture.cp.global[TENSOR_HEAD];
    uint8_t bytes[64 * 256];
    for (int call = 1; call <= 4; call++) {
        char text[64];
        memset(&disk, 0, sizeof disk);
        disk.at_most = 4096;
        disk.eio_at_call = call;
        err_clear(&fixture.err);
        assert_int_equal(checkpoint_read(&fixture.cp, place, 0, bytes, sizeof bytes, &fixture.err),
                         ERR_IO);
        snprintf(text, sizeof text, "cannot read at byte %llu",
                 (unsigned long long)place->offset + 4096 * (unsigned)(call - 1));
        assert_non_null(strstr(fixture.err.text, fixture_path("model.safetensors")));
        assert_non_null(strstr(fixture.err.text, text));
    }
    memset(&disk, 0, sizeof disk);
    assert_int_equal(checkpoint_read(&fixture.cp, place, 0, bytes, sizeof bytes, NULL), OK);
    checkpoint_close(&fixture.cp);
}

static void an_error_of_the_disk_while_opening_is_reported(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 3, .sparse = true };
    fixture_make(&options);
    for (int call = 1; call <= 6; call++) { // two reads a shard: the length, the header
        memset(&disk, 0, sizeof disk);
        disk.eio_at_call = call;
        char shard[64];
        snprintf(shard, sizeof shard, "model-%05d-of-00003.safetensors", (call + 1) / 2);
        fixture_refused(ERR_IO, fixture_path(shard), "cannot read its header");
    }
    memset(&disk, 0, sizeof disk);
    fixture_open();
    checkpoint_close(&fixture.cp);
}

static void too_many_open_files_is_said_so(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 40, .sparse = true };
    fixture_make(&options);
    struct rlimit before, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = 32;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    fixture_refused(ERR_SYSTEM, "too many open files", "ulimit -n");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    fixture_open(); // nothing of the failed attempt is still held
    checkpoint_close(&fixture.cp);
}

/* ---- the golden checkpoint ---- */

/* The committed one, or another of that form ($SLUICE_GOLDEN). */
static const char *golden(void) {
    const char *path = getenv("SLUICE_GOLDEN");
    return path && *path ? path : "tests/data/golden/checkpoint";
}

struct order {
    const struct checkpoint *cp;
    uint64_t n, end; // of the last tensor
    uint16_t file;
};

static enum status follows(void *context, const struct manifest_entry *entry, struct err *err) {
    struct order *o = context;
    (void)err;
    const struct tensor_place *place = fixture_place(o->cp, entry);
    assert_int_equal(place->bytes, entry->bytes);
    assert_true(place->file == o->file ? place->offset >= o->end : place->file == o->file + 1);
    o->file = place->file;
    o->end = place->offset + place->bytes;
    o->n++;
    return OK;
}

static void the_manifest_has_the_golden_files_order(void **state) {
    (void)state;
    const char *const dirs[] = { golden() };
    if (access(dirs[0], F_OK) != 0)
        skip();
    if (checkpoint_open(&fixture.cp, dirs, 1, &fixture.err) != OK)
        fail_msg("%s", fixture.err.text);
    struct order order = { .cp = &fixture.cp };
    assert_int_equal(manifest_walk(&fixture.cp.config, follows, &order, &fixture.err), OK);
    assert_int_equal(order.n, fixture.cp.n_tensors);
    assert_int_equal(fixture.cp.draft, DRAFT_MTP);
    assert_string_equal(fixture.cp.note, "");
    checkpoint_close(&fixture.cp);
}

struct pair {
    struct checkpoint a, b;
};

static enum status same_bytes(void *context, const struct manifest_entry *entry, struct err *err) {
    const struct pair *p = context;
    const struct tensor_place *a = fixture_place(&p->a, entry), *b = fixture_place(&p->b, entry);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->dtype, b->dtype);
    uint8_t *x = malloc(a->bytes), *y = malloc(b->bytes);
    assert_int_equal(checkpoint_read(&p->a, a, 0, x, a->bytes, err), OK);
    assert_int_equal(checkpoint_read(&p->b, b, 0, y, b->bytes, err), OK);
    assert_memory_equal(x, y, a->bytes);
    free(x);
    free(y);
    return OK;
}

static void renamed_golden_checkpoints_have_the_same_bytes(void **state) {
    (void)state;
    const char *const from[] = { golden() };
    if (access(from[0], F_OK) != 0)
        skip();
    for (enum make_names names = NAMES_PUBLISHED; names <= NAMES_V3; names++) {
        const char *const to[] = { fixture.dir };
        struct pair pair;
        if (make_renamed(from[0], to[0], names, &fixture.err) != OK ||
            checkpoint_open(&pair.a, from, 1, &fixture.err) != OK ||
            checkpoint_open(&pair.b, to, 1, &fixture.err) != OK)
            fail_msg("%s", fixture.err.text);
        assert_int_equal(manifest_walk(&pair.a.config, same_bytes, &pair, &fixture.err), OK);
        assert_int_equal(pair.a.n_tensors, pair.b.n_tensors);
        assert_int_equal(pair.b.n_ignored, 0);
        checkpoint_close(&pair.a);
        checkpoint_close(&pair.b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(tensors_are_found_however_they_are_sharded),
        FIXTURE_TEST(every_spelling_gives_the_same_bytes),
        FIXTURE_TEST(other_types_of_the_same_values_are_accepted),
        FIXTURE_TEST(base_experts_are_fp8),
        FIXTURE_TEST(opening_reads_no_weight),
        FIXTURE_TEST(shards_may_lie_in_several_directories),
        FIXTURE_TEST(numbers_of_other_widths_are_read_without_an_index),
        FIXTURE_TEST(each_tensor_is_missed_by_name),
        FIXTURE_TEST(many_missing_tensors_are_counted),
        FIXTURE_TEST(a_tensor_that_its_shard_lacks_is_named_with_it),
        FIXTURE_TEST(missing_and_short_shards_are_listed),
        FIXTURE_TEST(short_shards_are_listed),
        FIXTURE_TEST(more_than_eight_missing_shards_are_counted),
        FIXTURE_TEST(what_is_no_checkpoint_is_refused),
        FIXTURE_TEST(shards_that_are_no_files_are_refused),
        FIXTURE_TEST(shards_of_two_checkpoints_without_an_index_are_refused),
        FIXTURE_TEST(a_checkpoint_may_have_no_draft),
        FIXTURE_TEST(a_draft_block_is_complete_or_absent),
        FIXTURE_TEST(copies_of_embedding_and_head_are_ignored),
        FIXTURE_TEST(dspark_stages_are_recognized_and_left_alone),
        FIXTURE_TEST(tensors_are_read_through_short_reads_and_eintr),
        FIXTURE_TEST(a_part_of_a_tensor_is_read),
        FIXTURE_TEST(a_file_cut_while_open_is_truncated_at_a_byte),
        FIXTURE_TEST(an_error_of_the_disk_names_file_and_offset),
        FIXTURE_TEST(an_error_of_the_disk_while_opening_is_reported),
        FIXTURE_TEST(too_many_open_files_is_said_so),
        FIXTURE_TEST(the_manifest_has_the_golden_files_order),
        FIXTURE_TEST(renamed_golden_checkpoints_have_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
