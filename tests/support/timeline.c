#include "tests/support/timeline.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *timeline_read(const char *path) {
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        fail_msg("%s: line %d: %s", path, error.line, error.text);
    return root;
}

const char *timeline_string(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

uint64_t timeline_ns(const json_t *event) {
    return (uint64_t)llround(json_number_value(json_object_get(event, "ts")) * 1000);
}

static bool is(const json_t *event, const char *key, const char *value) {
    return strcmp(timeline_string(event, key), value) == 0;
}

static uint64_t number(const json_t *event, const char *of) {
    const json_t *value = json_object_get(json_object_get(event, "args"), of);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

// --- the control thread --------------------------------------------------------------------------

// How deep a span may lie: a step, in it a layer, in it an activity.
static int rank_of(const json_t *begin) {
    return is(begin, "cat", "step") ? 0 : is(begin, "cat", "layer") ? 1 : 2;
}

static void end_span(struct timeline *out, const json_t *begin, uint64_t end_ns) {
    assert_true(end_ns >= timeline_ns(begin));
    for (int p = 0; p < PHASES; p++) {
        const char *phase = phase_name((enum phase)p);
        out->n_steps[p] += rank_of(begin) == 0 && is(begin, "name", phase);
        for (int a = 0; a < ACTIVITIES; a++)
            if (is(begin, "cat", phase) && is(begin, "name", activity_name((enum activity)a)))
                out->ns[p][a] += end_ns - timeline_ns(begin);
    }
    out->n_layers += rank_of(begin) == 1;
}

static void sum_control(const json_t *events, struct timeline *out) {
    const json_t *open[3], *event;
    int depth = 0;
    uint64_t before = 0;
    for (size_t i = 0; i < json_array_size(events); i++) {
        event = json_array_get(events, i);
        bool begins = is(event, "ph", "B");
        if (!begins && !is(event, "ph", "E"))
            continue;
        assert_int_equal(json_integer_value(json_object_get(event, "tid")), 1);
        assert_true(timeline_ns(event) >= before);
        before = timeline_ns(event);
        if (begins) {
            assert_true(depth == 0 || rank_of(open[depth - 1]) < rank_of(event));
            assert_true(rank_of(event) != 1 || depth == 1); // no layer without a step
            open[depth++] = event;
        } else {
            assert_true(depth > 0);
            end_span(out, open[--depth], before);
        }
    }
    assert_true(depth == 0 || !out->complete);
    while (depth > 0)
        end_span(out, open[--depth], before);
}

// --- reads ---------------------------------------------------------------------------------------

// What is open of one: all begins and ends of it are neighbours in the file.
struct open_read {
    const char *id;
    const json_t *open[2];
    int depth;
};

static void see_read(struct open_read *read, const json_t *event, struct timeline *out) {
    static const char *const names[READ_PRIORITIES] = { "demand", "gather", "ahead", "prefetch",
                                                        "background" };
    if (is(event, "ph", "b")) {
        if (read->depth == 0) {
            assert_string_not_equal(timeline_string(event, "id"), read->id); // no second life
            read->id = timeline_string(event, "id");
            out->bytes += number(event, "bytes");
        } else {
            assert_true(is(event, "name", "queued") || is(event, "name", "active"));
            assert_true(timeline_ns(event) >= timeline_ns(read->open[0]));
        }
        assert_string_equal(timeline_string(event, "id"), read->id);
        assert_true(read->depth < 2);
        read->open[read->depth++] = event;
        return;
    }
    assert_true(is(event, "ph", "e") && read->depth > 0);
    const json_t *begin = read->open[--read->depth];
    assert_string_equal(timeline_string(event, "id"), read->id);
    assert_string_equal(timeline_string(event, "name"), timeline_string(begin, "name"));
    assert_true(timeline_ns(event) >= timeline_ns(begin));
    if (read->depth > 0)
        return;
    int priority = 0;
    while (priority < READ_PRIORITIES && !is(begin, "name", names[priority]))
        priority++;
    assert_true(priority < READ_PRIORITIES);
    const json_t *args = json_object_get(begin, "args");
    out->n_reads[priority]++;
    if (json_object_get(args, "dense"))
        out->n_dense++;
    else
        out->n_ok[priority] += strcmp(timeline_string(args, "status"), "ok") == 0;
}

static int by_text(const void *one, const void *other) {
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

static void sum_disk(const json_t *events, struct timeline *out) {
    struct open_read read = { .id = "" };
    size_t n_ids = 0, i;
    json_t *event;
    const char **ids = calloc(json_array_size(events) + 1, sizeof *ids);
    uint64_t n_chunks = 0, n_open = 0;
    json_array_foreach(events, i, event) {
        if (is(event, "cat", "read")) {
            if (read.depth == 0)
                ids[n_ids++] = timeline_string(event, "id");
            see_read(&read, event, out);
        } else if (is(event, "ph", "C") && is(event, "name", "disk queue")) {
            n_chunks = number(event, "chunks");
        } else if (is(event, "ph", "C") && is(event, "name", "disk requests")) {
            n_open = number(event, "open");
        } else if (is(event, "ph", "C") && is(event, "name", "disk read")) {
            assert_true(number(event, "bytes") >= out->bytes_so_far);
            out->bytes_so_far = number(event, "bytes");
        }
    }
    assert_int_equal(read.depth, 0);
    qsort(ids, n_ids, sizeof *ids, by_text);
    for (i = 1; i < n_ids; i++)
        assert_string_not_equal(ids[i - 1], ids[i]);
    free(ids);
    if (out->complete)
        assert_int_equal(n_chunks + n_open, 0);
}

void timeline_sum(const json_t *root, struct timeline *out) {
    const json_t *events = json_object_get(root, "traceEvents");
    const json_t *about = json_object_get(root, "sluice");
    *out = (struct timeline){ .complete = json_is_true(json_object_get(about, "complete")) };
    assert_true(json_is_array(events) && json_is_integer(json_object_get(about, "lost_events")));
    out->lost_events = (uint64_t)json_integer_value(json_object_get(about, "lost_events"));
    sum_control(events, out);
    sum_disk(events, out);
}
