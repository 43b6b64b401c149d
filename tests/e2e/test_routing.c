/* --record-routing of `run`, of a chat and of `eval`: which experts a token chose depends on nothing
 * but its text, and recording them changes nothing. */
#include "src/routing_trace.h"
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN "tests/data/golden/checkpoint"
#define PROMPT "The quick brown fox jumps over the lazy dog, and the dog does not mind."

static char *dir, *least;
static const char *model, *trace;

static void keep_least_ram(void);

static int make_all(void **state) {
    (void)state;
    static char names[2][512];
    signal(SIGPIPE, SIG_IGN);
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(names[0], sizeof names[0], "%s/model", dir);
    snprintf(names[1], sizeof names[1], "%s/trace", dir);
    model = names[0];
    trace = names[1];
    // Layers 2 to 4 of the demo's list: one by table, two by score.
    int code = program_run(
        dir, NULL,
        ARGUMENTS("mkmodel", "--first", "2", "--layers", "3", "--drafts", "none", model));
    if (code == 0)
        keep_least_ram();
    return code;
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    free(least);
    return 0;
}

// --- what is in a trace --------------------------------------------------------------------------

// A row as a line of text, in the order of the file: "sequence position token: experts | experts …".
struct rows {
    char *lines;
    size_t n_bytes;
    uint32_t n_rows, n_steps, widest;
};

static void read_rows(struct rows *out) {
    struct routing_reader *r;
    struct routing_step step;
    struct err err = { .status = OK };
    enum status status;
    *out = (struct rows){ 0 };
    if (routing_reader_open(&r, trace, &err) != OK)
        fail_msg("%s", err.text);
    const struct routing_header *h = routing_reader_header(r);
    FILE *text = open_memstream(&out->lines, &out->n_bytes);
    while ((status = routing_reader_next(r, &step, &err)) == OK) {
        for (uint32_t row = 0; row < step.n_rows; row++) {
            fprintf(text, "%u %u %u:", step.sequence[row], step.position[row], step.token[row]);
            for (uint32_t block = 0; block < step.n_blocks; block++)
                for (uint32_t k = 0; k < h->n_chosen; k++)
                    fprintf(text, "%s%u", k ? " " : " | ",
                            routing_experts(h, &step, block, row)[k]);
            fputc('\n', text);
        }
        out->n_rows += step.n_rows;
        out->widest = step.n_rows > out->widest ? step.n_rows : out->widest;
        out->n_steps++;
    }
    fclose(text);
    if (status != DONE)
        fail_msg("%s", err.text);
    routing_reader_close(r);
}

static void succeeds(const char *const *arguments) {
    int code = program_run(dir, NULL, arguments);
    if (code != 0)
        fail_msg("exit code %d: %s", code, program_read(dir, "err", NULL));
}

static void records(struct rows *out, const char *const *arguments) {
    unlink(trace);
    succeeds(arguments);
    read_rows(out);
}

static void assert_same_rows(const struct rows *one, struct rows *other) {
    assert_string_equal(one->lines, other->lines);
    free(other->lines);
}

// --- run -----------------------------------------------------------------------------------------

#define RUN(...)                                                                                   \
    ARGUMENTS("run", "-m", model, "--raw", "-p", PROMPT, "--seed", "5", "--ctx", "512",            \
              "--max-tokens", "20", __VA_ARGS__)
#define RECORD "--record-routing", trace

static void keep_least_ram(void) {
    least = program_least_ram(dir, RUN("--ram", "1M"));
}

static void routing_of_a_run_depends_on_its_text_alone(void **state) {
    (void)state;
    struct rows one, other;
    records(&one, RUN(RECORD));
    assert_true(one.widest > 20);      // the prompt is one step,
    assert_int_equal(one.n_steps, 20); // and all tokens but the last are one each
    assert_int_equal(one.n_rows, one.widest + 19);
    assert_memory_equal(one.lines, "0 0 ", 4);
    records(&other, RUN(RECORD, "--chunk", "7"));
    assert_int_equal(other.widest, 7);
    assert_same_rows(&one, &other);
    records(&other, RUN(RECORD, "--chunk", "1", "--threads", "1"));
    assert_int_equal(other.n_steps, other.n_rows);
    assert_same_rows(&one, &other);
    records(&other, RUN(RECORD, "--ram", least, "--io-engine", "pread"));
    assert_same_rows(&one, &other);
    free(one.lines);
}

static void recording_changes_no_text(void **state) {
    (void)state;
    struct rows rows;
    succeeds(RUN("--ram", least));
    char *plain = program_read(dir, "out", NULL);
    records(&rows, RUN("--ram", least, RECORD));
    char *recorded = program_read(dir, "out", NULL);
    assert_string_equal(plain, recorded);
    free(plain);
    free(recorded);
    free(rows.lines);
}

static void an_answer_to_a_message_is_recorded(void **state) {
    (void)state;
    struct rows rows;
    records(&rows, ARGUMENTS("run", "-m", model, "-p", "Hello", "--temperature", "0", "--ctx",
                             "512", "--max-tokens", "6", RECORD));
    assert_true(rows.n_steps >= 1 && rows.n_steps <= 6);
    assert_true(rows.widest >= 3); // BOS, the role, some of a word, the other role
    free(rows.lines);
}

// Two turns: the second takes in what is new, and so its positions go on where the first ended.
static void turns_of_a_chat_are_one_sequence(void **state) {
    (void)state;
    struct program p;
    struct rows rows;
    static const char *const prompt = "\x1b[?2004h> ";
    program_start(&p, dir, &(struct program_options){ .terminal = true, .keyboard = true },
                  ARGUMENTS("run", "-m", model, "--ctx", "512", "--max-tokens", "4", RECORD));
    assert_true(program_until(&p, NULL, prompt));
    for (int turn = 0; turn < 2; turn++) {
        p.n_screen = 0;
        p.screen[0] = '\0';
        program_type(&p, turn ? "And you?\r" : "Hello\r");
        assert_true(program_until(&p, NULL, prompt));
    }
    program_type(&p, "\x04");
    assert_int_equal(program_wait(&p), 0);
    program_close(&p);
    read_rows(&rows);
    uint32_t at = 0;
    for (const char *line = rows.lines; *line; line = strchr(line, '\n') + 1) {
        unsigned sequence, position;
        assert_int_equal(sscanf(line, "%u %u ", &sequence, &position), 2);
        assert_int_equal(sequence, 0);
        assert_int_equal(position, at++); // nothing is computed twice
    }
    assert_int_equal(at, rows.n_rows);
    free(rows.lines);
}

// A run that is interrupted leaves the tokens that it took in.
static void an_interrupted_run_leaves_a_whole_file(void **state) {
    (void)state;
    struct program p;
    struct rows whole, part;
    records(&whole, ARGUMENTS("run", "-m", model, "--raw", "-p", "a", "--seed", "5", "--ctx",
                              "4096", "--max-tokens", "100", RECORD));
    unlink(trace);
    program_start(
        &p, dir, NULL,
        ARGUMENTS("run", "-m", model, "--raw", "-p", "a", "--seed", "5", "--ctx", "4096", RECORD));
    assert_true(program_until(&p, "trace", "slroute\n"));
    assert_true(program_until(&p, "out", " "));
    kill(p.pid, SIGINT);
    assert_int_equal(program_wait(&p), 130);
    program_close(&p);
    read_rows(&part);
    assert_true(part.n_rows > 0);
    size_t n = part.n_bytes < whole.n_bytes ? part.n_bytes : whole.n_bytes;
    assert_memory_equal(part.lines, whole.lines, n);
    free(whole.lines);
    free(part.lines);
}

// --- eval ----------------------------------------------------------------------------------------

static void routing_of_an_eval_depends_on_its_text_alone(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct rows one, other;
    assert_int_equal(make_file(dir, "text", PROMPT PROMPT, strlen(PROMPT PROMPT), &err), OK);
#define EVAL(...)                                                                                  \
    ARGUMENTS("eval", "-m", model, "-f", in_dir(dir, "text"), "--window", "16", "--ctx", "512",    \
              __VA_ARGS__)
    records(&one, EVAL(RECORD));
    char *perplexity = program_read(dir, "out", NULL);
    assert_int_equal(one.widest, 15);             // a window, without its last token
    assert_non_null(strstr(one.lines, "\n1 0 ")); // each window is a sequence
    assert_non_null(strstr(one.lines, "\n2 14 "));
    records(&other, EVAL(RECORD, "--chunk", "4", "--ram", least));
    assert_int_equal(other.widest, 4);
    assert_same_rows(&one, &other);
    succeeds(EVAL("--chunk", "4"));
    char *plain = program_read(dir, "out", NULL);
    assert_string_equal(perplexity, plain);
    free(perplexity);
    free(plain);
    free(one.lines);
}

// The draft block sees all but the last position; decoding and prefill are recorded alike.
static void routing_of_the_draft_block_is_recorded(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct rows one, other;
    const char *ids = in_dir(dir, "ids"), *logits = in_dir(dir, "logits");
    const char *others = in_dir(dir, "others");
    assert_int_equal(make_file(dir, "ids", "5 9 200 17 3 44 1 0 255 6", 25, &err), OK);
#define LOGITS(out, ...)                                                                           \
    ARGUMENTS("eval", "-m", GOLDEN, "--tokens", ids, "--logits", out, "--ctx", "64", __VA_ARGS__)
    records(&one, LOGITS(logits, "--mtp", RECORD));
    assert_int_equal(one.n_rows, 10);
    int n_bars = 0;
    for (const char *at = one.lines; *at; at++)
        n_bars += *at == '|';
    assert_int_equal(n_bars, 9 * 6 + 5); // the last row without the draft block
    records(&other, LOGITS(others, "--mtp", "--decode-from", "4", RECORD));
    assert_int_equal(other.n_steps, 7);
    assert_same_rows(&one, &other);
    succeeds(LOGITS(others, "--mtp"));
    assert_true(same_files(logits, others));
    free(one.lines);
}

// --- files that cannot be written ----------------------------------------------------------------

static void assert_error(int code, int want, const char *text) {
    char *err = program_read(dir, "err", NULL);
    if (code != want || !strstr(err, text))
        fail_msg("exit code %d: %s", code, err);
    free(err);
}

static void a_wrong_path_is_refused_before_the_model(void **state) {
    (void)state;
    int code = program_run(dir, NULL,
                           ARGUMENTS("run", "-m", "no/such/model", "--raw", "-p", "a",
                                     "--record-routing", in_dir(dir, "no/trace")));
    assert_error(code, 1, "no/trace: cannot be made: No such file");
    unlink(trace);
    code =
        program_run(dir, NULL, ARGUMENTS("eval", "-m", "no/such/model", "-f", "README.md", RECORD));
    assert_error(code, 1, "no/such/model");
    assert_int_equal(access(trace, F_OK), -1); // and nothing is left of a run that was none
}

// Room for the account and the answer, and less than the trace wants.
#define ROOM 16384

static bool confine_files(void *context) {
    (void)context;
    return setrlimit(RLIMIT_FSIZE, &(struct rlimit){ ROOM, ROOM }) == 0;
}

static void a_full_disk_is_an_error_and_no_lost_answer(void **state) {
    (void)state;
    struct program_options confined = { .confine = confine_files };
    struct err err = { .status = OK };
    struct rows all, some;
    char text[1200];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 5 ? (char)('a' + i * i % 26) : ' ';
    assert_int_equal(make_file(dir, "text", text, sizeof text, &err), OK);
#define LONG                                                                                       \
    ARGUMENTS("run", "-m", model, "--raw", "-f", in_dir(dir, "text"), "--ctx", "8192", "--chunk",  \
              "64", "--temperature", "0", "--max-tokens", "9", RECORD)
    records(&all, LONG);
    char *whole = program_read(dir, "out", NULL);
    unlink(trace);
    int code = program_run(dir, &confined, LONG);
    assert_error(code, 1, "/trace: cannot be written at byte 16384: ");
    assert_error(code, 1, "sluice run: ");
    assert_error(code, 1, "ended by: ");
    assert_error(code, 1, "100.0 %"); // the account is there too
    char *answer = program_read(dir, "out", NULL);
    assert_string_equal(answer, whole);
    read_rows(&some); // which says that it ends with a whole step
    assert_true(some.n_rows > 0 && some.n_rows < all.n_rows && some.n_rows % 64 == 0);
    assert_memory_equal(some.lines, all.lines, some.n_bytes);
    free(answer);
    free(whole);
    free(all.lines);
    free(some.lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routing_of_a_run_depends_on_its_text_alone),
        cmocka_unit_test(recording_changes_no_text),
        cmocka_unit_test(an_answer_to_a_message_is_recorded),
        cmocka_unit_test(turns_of_a_chat_are_one_sequence),
        cmocka_unit_test(an_interrupted_run_leaves_a_whole_file),
        cmocka_unit_test(routing_of_an_eval_depends_on_its_text_alone),
        cmocka_unit_test(routing_of_the_draft_block_is_recorded),
        cmocka_unit_test(a_wrong_path_is_refused_before_the_model),
        cmocka_unit_test(a_full_disk_is_an_error_and_no_lost_answer),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
