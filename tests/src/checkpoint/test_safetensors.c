#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/checkpoint/safetensors.h"
#include "tests/support/make_checkpoint.h"

/* This program's pread, in place of the C library's, so that reads can be made to go wrong. */
static struct {
    int eintr;       /* this many calls first fail with EINTR */
    size_t at_most;  /* bytes a call gives, 0: all */
    int eio_at_call; /* 1: the first call fails with EIO, … */
    int calls;
} faults;

ssize_t pread(int fd, void *buffer, size_t bytes, off_t offset);
ssize_t pread(int fd, void *buffer, size_t bytes, off_t offset) {
    faults.calls++;
    if (faults.eintr > 0) {
        faults.eintr--;
        errno = EINTR;
        return -1;
    }
    if (faults.calls == faults.eio_at_call) {
        errno = EIO;
        return -1;
    }
    if (faults.at_most && bytes > faults.at_most)
        bytes = faults.at_most;
    return syscall(SYS_pread64, fd, buffer, bytes, offset);
}

static enum status parse(struct safetensors *st, const char *text, uint64_t file_bytes,
                         struct err *err) {
    *err = (struct err){ 0 };
    return safetensors_parse(st, text, strlen(text), file_bytes, "d/x.safetensors", err);
}

static void expect(const char *text, uint64_t file_bytes, enum status status, const char *what) {
    struct safetensors st;
    struct err err;
    if (parse(&st, text, file_bytes, &err) != status)
        fail_msg("%s: %d %s", text, err.status, err.text);
    if (status != OK && !strstr(err.text, "d/x.safetensors: "))
        fail_msg("\"%s\" does not name the file", err.text);
    if (!strstr(err.text, what))
        fail_msg("\"%s\" does not say %s", err.text, what);
    safetensors_close(&st);
}

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
    "]}"

static void a_header_is_read_in_file_order(void **state) {
    (void)state;
    const char *text = "{\"__metadata__\":{\"format\":\"pt\",\"prompt\":\"260\"}," //
        TENSOR("b", "F32", "[2,3]", 8, 32) ","                                     //
        TENSOR("a", "BF16", "[4]", 0, 8) ","                                       //
        TENSOR("scalar", "I64", "[]", 32, 40) "}   ";
    struct safetensors st;
    struct err err;
    assert_int_equal(parse(&st, text, 8 + strlen(text) + 40, &err), OK);
    assert_int_equal(st.n_tensors, 3);
    assert_string_equal(st.tensors[0].name, "a");
    assert_string_equal(st.tensors[1].name, "b");
    assert_string_equal(st.tensors[1].dtype, "F32");
    assert_int_equal(st.tensors[1].n_dims, 2);
    assert_int_equal(st.tensors[1].shape[1], 3);
    assert_int_equal(st.tensors[1].offset, 8 + strlen(text) + 8);
    assert_int_equal(st.tensors[1].bytes, 24);
    assert_int_equal(st.tensors[2].n_dims, 0);
    assert_int_equal(st.end, 8 + strlen(text) + 40);
    assert_ptr_equal(safetensors_find(&st, "b"), &st.tensors[1]);
    assert_null(safetensors_find(&st, "c"));
    assert_string_equal(safetensors_metadata(&st, "prompt"), "260");
    assert_null(safetensors_metadata(&st, "other"));
    safetensors_close(&st);
    assert_null(safetensors_metadata(&st, "prompt"));
}

static void an_empty_header_is_a_file_of_no_tensors(void **state) {
    (void)state;
    expect("{}", 10, OK, "");
    expect("{\"__metadata__\":{}}", 100, OK, "");
}

static void all_dtypes_of_the_format_are_measured(void **state) {
    (void)state;
    static const struct {
        const char *dtype;
        unsigned bits;
    } cases[] = {
        { "BOOL", 8 },        { "U8", 8 },          { "I8", 8 },      { "F8_E4M3", 8 },
        { "F8_E5M2", 8 },     { "F8_E8M0", 8 },     { "I16", 16 },    { "U16", 16 },
        { "F16", 16 },        { "BF16", 16 },       { "I32", 32 },    { "U32", 32 },
        { "F32", 32 },        { "F64", 64 },        { "I64", 64 },    { "U64", 64 },
        { "C64", 64 },        { "F4", 4 },          { "F6_E2M3", 6 }, { "F6_E3M2", 6 },
        { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[4,2],\"data_offsets\":[0,%u]}}",
                 cases[i].dtype, cases[i].bits);
        expect(text, 1000, OK, "");
        snprintf(text, sizeof text,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[4,2],\"data_offsets\":[0,%u]}}",
                 cases[i].dtype, cases[i].bits + 1);
        expect(text, 1000, ERR_INPUT, "tensor t: its shape and dtype do not make");
    }
    expect("{" TENSOR("t", "F4", "[3]", 0, 1) "}", 1000, ERR_INPUT, "tensor t");
    expect("{" TENSOR("t", "Q4_K", "[4]", 0, 2) "}", 1000, ERR_INPUT,
           "tensor t: unknown dtype \"Q4_K\"");
}

static void malformed_entries_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *text, *what;
    } cases[] = {
        { "", "not JSON" },
        { "[1]", "not a JSON object" },
        { "{\"t\":", "not JSON" },
        { "{} x", "not JSON" },
        { "{\"\xc3\x28\":1}", "not JSON" },
        { "{\"__metadata__\":[]}", "__metadata__" },
        { "{\"t\":1}", "tensor t: its entry is not an object" },
        { "{\"t\":{}}", "tensor t: has no dtype" },
        { "{\"t\":{\"dtype\":1}}", "tensor t: has no dtype" },
        { "{\"t\":{\"dtype\":\"F32\"}}", "tensor t: its shape" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":4}}", "tensor t: its shape" },
        { "{" TENSOR("t", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", "tensor t: its shape" },
        { "{" TENSOR("t", "F32", "[-1]", 0, 4) "}", "tensor t: a size" },
        { "{" TENSOR("t", "F32", "[1.0]", 0, 4) "}", "tensor t: a size" },
        { "{" TENSOR("t", "F32", "[\"1\"]", 0, 4) "}", "tensor t: a size" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", "tensor t: its data_offsets" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
          "tensor t: its data_offsets" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}",
          "tensor t: its data_offsets" },
        { "{" TENSOR("t", "F32", "[1]", -4, 0) "}", "tensor t: its data_offsets" },
        { "{" TENSOR("t", "F32", "[1]", 4, 0) "}", "tensor t: its data begin after they end" },
        { "{" TENSOR("t", "F32", "[1]", 0, 8) "}", "tensor t: its shape and dtype do not make 8" },
        { "{" TENSOR("t", "U8", "[9223372036854775807]", 0, 9223372036854775807) "}",
          "tensor t: its data lie beyond 2^63" },
        { "{" TENSOR("t", "U8", "[1]", 0, 9223372036854775808) "}", "too big integer" },
        // Products that wrap around to what the offsets say.
        { "{" TENSOR("t", "F32", "[4611686018427387904,4]", 0, 0) "}", "tensor t: its shape" },
        { "{" TENSOR("t", "F32", "[4294967296,4294967296]", 0, 0) "}", "tensor t: its shape" },
        { "{" TENSOR("t", "F64", "[288230376151711745]", 0, 8) "}", "tensor t: its shape" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(cases[i].text, 1000, ERR_INPUT, cases[i].what);
}

static void a_name_given_twice_is_refused_by_name(void **state) {
    (void)state;
    expect("{" TENSOR("embed.weight", "U8", "[1]", 0, 1) "," //
           TENSOR("embed.weight", "U8", "[1]", 1, 2) "}",
           1000, ERR_INPUT, "duplicate object key near '\"embed.weight\"'");
}

static void depth_bombs_are_refused(void **state) {
    (void)state;
    const size_t n = 8 << 20;
    char *text = malloc(n + 1);
    memset(text, '[', n);
    text[n] = 0;
    expect(text, n + 8, ERR_INPUT, "not JSON");
    for (size_t i = 0; i + 5 <= n; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    expect(text, n + 8, ERR_INPUT, "not JSON");
    memcpy(text, "{\"__metadata__\":", 16);
    expect(text, n + 8, ERR_INPUT, "not JSON");
    free(text);
}

static void overlapping_tensors_are_both_named(void **state) {
    (void)state;
    expect("{" TENSOR("a", "U8", "[8]", 0, 8) "," TENSOR("b", "U8", "[8]", 7, 15) "}", 1000,
           ERR_INPUT, "tensors a and b overlap");
    expect("{" TENSOR("b", "U8", "[8]", 7, 15) "," TENSOR("a", "U8", "[8]", 0, 8) "}", 1000,
           ERR_INPUT, "tensors a and b overlap");
    expect("{" TENSOR("a", "U8", "[8]", 4, 12) "," TENSOR("b", "U8", "[8]", 4, 12) "}", 1000,
           ERR_INPUT, "overlap");
    // One inside another, with a third between them in order of offset.
    expect("{" TENSOR("a", "U8", "[100]", 0, 100) "," TENSOR("z", "U8", "[0]", 10, 10) "," //
           TENSOR("b", "U8", "[1]", 99, 100) "}",
           1000, ERR_INPUT, "tensors a and b overlap");
}

static void holes_and_empty_tensors_are_allowed(void **state) {
    (void)state;
    expect("{" TENSOR("a", "U8", "[8]", 3, 11) "," TENSOR("b", "U8", "[8]", 20, 28) "}", 1000, OK,
           "");
    expect("{" TENSOR("a", "U8", "[8]", 0, 8) "," TENSOR("e", "F32", "[0,5]", 4, 4) "," //
           TENSOR("f", "F32", "[4611686018427387904,16,0]", 8, 8) "}",
           1000, OK, "");
}

static void data_outside_the_file_are_truncated_by_name(void **state) {
    (void)state;
    const char *text = "{" TENSOR("a", "U8", "[8]", 0, 8) "," TENSOR("b", "U8", "[8]", 8, 16) "}";
    const uint64_t data = 8 + strlen(text);
    struct safetensors st;
    struct err err;
    expect(text, data + 16, OK, "");
    expect(text, data + 15, ERR_TRUNCATED, "tensor b is cut");
    expect(text, data + 8, ERR_TRUNCATED, "tensor b is cut");
    expect(text, data + 7, ERR_TRUNCATED, "tensor a is cut");
    assert_int_equal(parse(&st, text, data, &err), ERR_TRUNCATED);
    assert_int_equal(st.end, data + 16);
    safetensors_close(&st);
}

/* ---- the 8 bytes before the header ---- */

static enum status length_of(uint64_t length, uint64_t file_bytes, size_t *out, struct err *err) {
    uint8_t first[8];
    for (int i = 0; i < 8; i++)
        first[i] = (uint8_t)(length >> (8 * i));
    *err = (struct err){ 0 };
    return safetensors_header_length(first, file_bytes, "d/x", out, err);
}

static void header_lengths_are_bounded(void **state) {
    (void)state;
    struct err err;
    size_t out;
    assert_int_equal(length_of(2, 10, &out, &err), OK);
    assert_int_equal(out, 2);
    assert_int_equal(length_of(100000000, 100000008, &out, &err), OK);
    assert_int_equal(out, 100000000);
    assert_int_equal(length_of(3, 10, &out, &err), ERR_TRUNCATED);
    assert_non_null(strstr(err.text, "d/x: ends inside its header (10 of 11 bytes)"));
    assert_int_equal(length_of(2, 8, &out, &err), ERR_TRUNCATED);
    static const uint64_t bad[] = { 0, 1, 100000001, 1ull << 32, 1ull << 63, UINT64_MAX };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(length_of(bad[i], 1ull << 40, &out, &err), ERR_INPUT);
        assert_non_null(strstr(err.text, "d/x: not a safetensors file"));
        assert_int_equal(out, 0);
    }
}

static void a_git_lfs_pointer_is_called_one(void **state) {
    (void)state;
    struct err err = { 0 };
    size_t out;
    assert_int_equal(safetensors_header_length((const uint8_t *)"version https://git-lfs", 130,
                                               "d/x", &out, &err),
                     ERR_INPUT);
    assert_non_null(strstr(err.text, "git lfs pull"));
}

/* ---- files ---- */

#define HEADER_BYTES 53
static const char file_text[] = "\x35\0\0\0\0\0\0\0" // 53, then so many bytes of text
                                "{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"
                                "\1\2\3\4";

static int temp_file(const void *bytes, size_t length) {
    FILE *file = tmpfile();
    assert_non_null(file);
    fwrite(bytes, 1, length, file);
    fflush(file);
    const int fd = dup(fileno(file));
    fclose(file);
    return fd;
}

static void files_are_read_through_short_reads_and_eintr(void **state) {
    (void)state;
    const size_t n = sizeof file_text - 1;
    const int fd = temp_file(file_text, n);
    for (size_t at_most = 0; at_most < 4; at_most++) {
        struct safetensors st;
        struct err err = { 0 };
        memset(&faults, 0, sizeof faults);
        faults.at_most = at_most;
        faults.eintr = 2;
        assert_int_equal(safetensors_read(&st, fd, n, "d/x", &err), OK);
        assert_int_equal(st.n_tensors, 1);
        assert_int_equal(st.tensors[0].offset, 8 + HEADER_BYTES);
        safetensors_close(&st);
    }
    memset(&faults, 0, sizeof faults);
    close(fd);
}

static void errors_of_the_disk_are_reported(void **state) {
    (void)state;
    const size_t n = sizeof file_text - 1;
    const int fd = temp_file(file_text, n);
    for (int call = 1; call <= 2; call++) {
        struct safetensors st;
        struct err err = { 0 };
        memset(&faults, 0, sizeof faults);
        faults.eio_at_call = call;
        assert_int_equal(safetensors_read(&st, fd, n, "d/x", &err), ERR_IO);
        assert_non_null(strstr(err.text, "d/x: cannot read its header"));
        safetensors_close(&st);
    }
    memset(&faults, 0, sizeof faults);
    close(fd);
}

static void a_file_cut_anywhere_is_truncated(void **state) {
    (void)state;
    const size_t n = sizeof file_text - 1;
    for (size_t length = 0; length < n; length++) {
        const int fd = temp_file(file_text, length);
        struct safetensors st;
        struct err err = { 0 };
        assert_int_equal(safetensors_read(&st, fd, length, "d/x", &err), ERR_TRUNCATED);
        assert_non_null(strstr(err.text, "d/x: "));
        safetensors_close(&st);
        // And if it lost its end only after its size was asked for:
        err = (struct err){ 0 };
        assert_int_equal(safetensors_read(&st, fd, n, "d/x", &err),
                         length < 8 + HEADER_BYTES ? ERR_TRUNCATED : OK);
        safetensors_close(&st);
        close(fd);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_read_in_file_order),
        cmocka_unit_test(an_empty_header_is_a_file_of_no_tensors),
        cmocka_unit_test(all_dtypes_of_the_format_are_measured),
        cmocka_unit_test(malformed_entries_are_refused_by_name),
        cmocka_unit_test(a_name_given_twice_is_refused_by_name),
        cmocka_unit_test(depth_bombs_are_refused),
        cmocka_unit_test(overlapping_tensors_are_both_named),
        cmocka_unit_test(holes_and_empty_tensors_are_allowed),
        cmocka_unit_test(data_outside_the_file_are_truncated_by_name),
        cmocka_unit_test(header_lengths_are_bounded),
        cmocka_unit_test(a_git_lfs_pointer_is_called_one),
        cmocka_unit_test(files_are_read_through_short_reads_and_eintr),
        cmocka_unit_test(errors_of_the_disk_are_reported),
        cmocka_unit_test(a_file_cut_anywhere_is_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
