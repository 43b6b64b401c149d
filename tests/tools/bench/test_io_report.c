/* What `bench io` says of drives: findings on machines of tests/data/sysfs, figures, the three reports. */
#include "tools/bench/io.h"
#include "tools/bench/io_meaning.h"

#include "tests/support/make_checkpoint.h"
#include "tests/support/sysfs_tree.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char *dir;
static struct bench_io b;

static int make_two_drives(void **state) {
    (void)state;
    dir = make_temp_dir();
    b = (struct bench_io){ .drives = calloc(2, sizeof *b.drives),
                           .n_drives = 1,
                           .engine = "io_uring" };
    for (int i = 0; b.drives && i < 2; i++) {
        struct bench_drive *d = &b.drives[i];
        d->target.path = i ? "/two" : "/one";
        d->target.made_fd = -1;
        snprintf(d->target.name, sizeof d->target.name, "%s/file", d->target.path);
        snprintf(d->target.place.key, sizeof d->target.place.key, "drive %d", i);
        snprintf(d->target.place.mount.filesystem, sizeof d->target.place.mount.filesystem, "ext4");
        d->target.place.device = (struct device){ .bytes = 10ull << 30, .direct = DIRECT_YES };
    }
    return dir == NULL || b.drives == NULL;
}
static int remove_drives(void **state) {
    (void)state;
    free(b.drives);
    remove_temp_dir(dir);
    return 0;
}

static void lies_on(int drive, const char *tree, uint32_t major_number, uint32_t minor_number) {
    struct err err = { .status = OK };
    char root[512];
    snprintf(root, sizeof root, "%s/%s", dir, tree);
    if (sysfs_tree_make(root, tree, &err) != OK)
        fail_msg("%s", err.text);
    assert_true(
        link_examine(&b.drives[drive].target.place.stack, root, major_number, minor_number));
}

static struct read_result result(enum read_shape shape, uint32_t block_bytes, uint32_t depth,
                                 double rate) {
    struct read_result r = {
        .setup = { .shape = shape, .block_bytes = block_bytes, .depth = depth },
        .rate = rate,
        .registered = true,
        .seconds = 2,
        .bytes = (uint64_t)(rate * 2),
        .n_reads = 1000,
        .cpu_s = 0.1,
        .p50_ns = 1e5,
        .p90_ns = 2e5,
        .p99_ns = 2.5e5,
        .p999_ns = 1e6,
        .most_ns = 2e6
    };
    return r;
}

static void reads_at(int drive, double rate) {
    struct bench_drive *d = &b.drives[drive];
    d->expert = result(SHAPE_EXPERT, 2 << 20, 32, rate);
    d->expert.setup.ahead = EXPERTS_AHEAD;
    d->alone = result(SHAPE_EXPERT, 2 << 20, 32, rate * 0.9);
    d->chunk_bytes = 2 << 20;
    d->depth = 32;
    d->tuned_rate = rate;
    d->default_rate = rate * 0.95;
}

static void finds(int drive, const char *text) {
    bench_findings(&b, (uint32_t)drive);
    const struct bench_drive *d = &b.drives[drive];
    for (uint32_t i = 0; i < d->n_findings; i++)
        if (strstr(d->findings[i], text))
            return;
    fail_msg("no finding says '%s'; the first of %u: %s", text, d->n_findings, d->findings[0]);
}

static void finds_nothing(int drive) {
    bench_findings(&b, (uint32_t)drive);
    if (b.drives[drive].n_findings)
        fail_msg("%s", b.drives[drive].findings[0]);
}

// --- findings ------------------------------------------------------------------------------------

static void a_good_drive_in_a_good_slot_has_no_findings(void **state) {
    (void)state;
    lies_on(0, "nvme_gen4_x4", 259, 2);
    reads_at(0, 6.5e9);
    finds_nothing(0);
}

static void a_slot_that_holds_a_drive_back_is_named(void **state) {
    (void)state;
    lies_on(0, "nvme_gen4_in_gen3_x2", 259, 0);
    reads_at(0, 1.75e9);
    finds(0, "its slot carries no more than Gen3 x2 (1.97 GB/s); the drive could do Gen4 x4 (7.88");
    finds(0, "the link is the limit: 89 % of it");
}

static void a_link_that_came_up_too_slow_is_told_from_a_slow_slot(void **state) {
    (void)state;
    struct err err = { .status = OK };
    lies_on(0, "nvme_gen4_x4", 259, 2);
    char root[512];
    snprintf(root, sizeof root, "%s/nvme_gen4_x4", dir);
    const char *now = "devices/pci0000:00/0000:00:06.0/0000:01:00.0/current_link_speed";
    assert_int_equal(sysfs_tree_file(root, now, "2.5 GT/s PCIe", &err), OK);
    assert_true(link_examine(&b.drives[0].target.place.stack, root, 259, 2));
    finds(0, "agreed on Gen1 x4 (1.00 GB/s) although the drive could do Gen4 x4");
}

static void what_shares_its_link_is_told(void **state) {
    (void)state;
    lies_on(0, "nvme_chipset_amd", 259, 0);
    finds(0, "nvme0n1: on the chipset's lanes");
}

static void a_narrow_uplink_is_told(void **state) {
    (void)state;
    lies_on(0, "nvme_chipset_gen3_uplink", 259, 0);
    finds(0, "a link above the drive's own carries only Gen3 x4 (3.94 GB/s)");
    reads_at(0, 3.6e9);
    finds(0, "the link is the limit: 91 %");
}

static void encryption_is_told_with_what_it_costs(void **state) {
    (void)state;
    lies_on(0, "luks_on_nvme", 252, 1);
    finds(0, "nvme0n1p3_crypt (LUKS2): the CPU decrypts every byte");
    reads_at(0, 2e9);
    b.drives[0].expert.machine_s = 3;
    finds(0, "busy for 0.75 CPU seconds a GB");
}

static void a_raid_that_is_no_raid0_is_told(void **state) {
    (void)state;
    lies_on(0, "md_raid0_of_two", 9, 0);
    finds_nothing(0);
    snprintf(b.drives[0].target.place.stack.layers[0].what, 32, "raid5");
    finds(0, "md0 (raid5 of 2)");
}

static void sata_usb_and_virtual_drives_are_told(void **state) {
    (void)state;
    lies_on(0, "sata_ssd", 8, 1);
    finds(0, "a SATA port that carries 0.60 GB/s at most");
    lies_on(0, "usb_ssd", 8, 17);
    finds(0, "a USB port that carries 1.21 GB/s");
    lies_on(0, "virtio", 254, 0);
    finds(0, "a virtual disk");
    lies_on(0, "loop", 7, 0);
    finds(0, "loop device on /srv/images/models.img");
}

static void a_file_system_that_costs_something_is_told(void **state) {
    (void)state;
    struct place *p = &b.drives[0].target.place;
    static const char *const names[][2] = { { "overlay", "overlay:" },
                                            { "nfs4", "network" },
                                            { "fuse.sshfs", "another process" },
                                            { "zfs", "zfs get compression" } };
    for (size_t i = 0; i < 4; i++) {
        snprintf(p->mount.filesystem, sizeof p->mount.filesystem, "%s", names[i][0]);
        finds(0, names[i][1]);
    }
    snprintf(p->mount.filesystem, sizeof p->mount.filesystem, "btrfs");
    finds_nothing(0);
    snprintf(p->mount.options, sizeof p->mount.options, "rw,compress=zstd:3");
    finds(0, "btrfs is mounted with compression");
    p->map = (struct filemap){ .known = true, .whole = true, .encoded_bytes = p->device.bytes / 2 };
    finds(0, "50 % of the file are stored compressed");
    p->device.direct = DIRECT_BUFFERED;
    finds(0, "reads through the page cache all the same");
    p->device.direct = DIRECT_REFUSED;
    finds(0, "refuses O_DIRECT");
    p->map.n_pieces = 10000;
    finds(0, "lies in 10000 pieces of 1.07 MB");
}

static void growing_hot_is_told(void **state) {
    (void)state;
    struct bench_sustained *s = &b.drives[0].sustained;
    s->span_s = 1;
    for (s->n = 0; s->n < 100; s->n++)
        s->rates[s->n] = s->n < 60 ? 7e9 : 3e9;
    finds(0, "slowed down from 7.00 to 3.00 GB/s");
    for (s->n = 0; s->n < 100; s->n++)
        s->rates[s->n] = 7e9 - 1e6 * s->n;
    finds_nothing(0);
    double first, last;
    s->n = 19; // a tenth is one span: too little to judge by
    assert_false(bench_sustained_ends(s, &first, &last));
}

static void two_paths_on_one_drive_are_told(void **state) {
    (void)state;
    b.n_drives = 2;
    finds_nothing(1);
    strcpy(b.drives[1].target.place.key, b.drives[0].target.place.key);
    finds(1, "lies on the same drive as /one");
    finds_nothing(0);
}

static void memory_that_is_not_registered_is_told(void **state) {
    (void)state;
    reads_at(0, 3e9);
    finds_nothing(0);
    b.drives[0].expert.registered = false;
    finds(0, "RLIMIT_MEMLOCK");
    b.forbid_uring = true; // threads register nothing
    finds_nothing(0);
}

static void drives_that_hinder_each_other_are_told(void **state) {
    (void)state;
    b.n_drives = 2;
    reads_at(0, 4e9);
    b.drives[0].together = result(SHAPE_EXPERT, 2 << 20, 32, 2e9);
    finds(0, "together with the others it reads 50 %");
}

// --- what it means -------------------------------------------------------------------------------

static void figures_are_those_of_the_models(void **state) {
    (void)state;
    struct meaning_model m[MEANING_MODELS];
    meaning_models(m);
    assert_int_equal(m[0].expert_bytes, EXPERT_BYTES);
    assert_int_equal(m[0].token_experts, 366);
    assert_int_equal(m[0].token_bytes, 366ull * EXPERT_BYTES); // 12.84 GB
    assert_int_equal(m[0].sweep_bytes, 384ull * 61 * EXPERT_BYTES);
    assert_int_equal(m[1].expert_bytes, 13369344);
    assert_int_equal(m[1].token_experts, 258);
    // 7 GB/s: half a token a second cold, 2.7 at 80 %; a sweep of 117 s
    assert_true(fabs(meaning_tokens_per_s(&m[0], 7e9, 0) - 0.545) < 0.001);
    assert_true(fabs(meaning_tokens_per_s(&m[0], 7e9, 0.8) - 2.725) < 0.005);
    assert_true(fabs(meaning_sweep_s(&m[0], 7e9) - 117.4) < 0.1);
}

static void conclusions_are_drawn_from_all_drives_together(void **state) {
    (void)state;
    b.n_drives = 2;
    assert_true(bench_rate(&b) == 0);
    reads_at(0, 3e9);
    reads_at(1, 5e9);
    assert_true(bench_rate(&b) == 8e9);
    b.drives[0].together = result(SHAPE_EXPERT, 2 << 20, 32, 2e9);
    b.drives[1].together = result(SHAPE_EXPERT, 2 << 20, 32, 4e9);
    assert_true(bench_rate(&b) == 6e9);
}

// --- reports -------------------------------------------------------------------------------------

static void fill_everything(void) {
    b.n_drives = 2;
    lies_on(0, "luks_on_nvme", 252, 1);
    lies_on(1, "nvme_gen4_in_gen3_x2", 259, 0);
    for (int i = 0; i < 2; i++) {
        struct bench_drive *d = &b.drives[i];
        reads_at(i, 3e9 + i);
        d->together = result(SHAPE_EXPERT, 2 << 20, 32, 2.5e9);
        for (uint32_t depth = 1; depth <= 64; depth *= 4) {
            d->points[d->n_points++] = result(SHAPE_RANDOM, 4096, depth, 1e8 * depth);
            d->points[d->n_points++] = result(SHAPE_SEQUENTIAL, 1 << 20, depth, 2e9);
        }
        d->points[d->n_points] = result(SHAPE_RANDOM, 4096, 32, 1e9);
        d->points[d->n_points++].setup.plain_memory = true;
        d->candidates[d->n_candidates++] =
            (struct bench_candidate){ 2 << 20, 32, 3e9, { 3e9, 3.1e9 }, 2 };
        for (d->sustained.n = 0; d->sustained.n < 40; d->sustained.n++)
            d->sustained.rates[d->sustained.n] = 3e9;
        d->sustained.span_s = 1;
    }
    bench_findings(&b, 0);
    bench_findings(&b, 1);
}

static char *printed(void (*print)(const struct bench_io *, FILE *)) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    assert_non_null(f);
    print(&b, f);
    fclose(f);
    return text;
}

static void print_json(const struct bench_io *io, FILE *out) {
    assert_true(bench_json(io, out));
}

static void says(const char *text, const char *wanted) {
    if (!strstr(text, wanted))
        fail_msg("'%s' is not in:\n%s", wanted, text);
}

static void the_text_has_all_that_was_measured_in_a_hundred_columns(void **state) {
    (void)state;
    fill_everything();
    char *text = printed(bench_text);
    says(text, "/one/file");
    says(text, "LUKS2 nvme0n1p3_crypt");
    says(text, "PCIe Gen3 x2, 1.97 GB/s");
    says(text, "experts   3.00 GB/s, 38 % of the link; 0.017 CPU seconds a GB");
    says(text, "chosen    chunks of 2 MiB x 32: 3.00 GB/s; sluice's default: 2.85");
    says(text, "  random reads, GB/s");
    says(text, "random 4 KiB x 32, plain memory");
    says(text, "5.00 GB/s  together, 83 % of the sum");
    says(text, "first tenth 3.00, last 3.00");
    says(text, "Pro        0.39    0.52    0.78    1.30    1.95    3.89    7.79      164 s");
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 100);
    free(text);
}

static void the_json_has_all_that_was_measured(void **state) {
    (void)state;
    fill_everything();
    char *text = printed(print_json);
    json_t *root = json_loads(text, 0, NULL), *first, *value;
    assert_non_null(root);
    first = json_array_get(json_object_get(root, "drives"), 0);
    assert_int_equal(json_array_size(json_object_get(first, "points")), 9);
    value = json_object_get(json_object_get(first, "chosen"), "chunk_bytes");
    assert_int_equal(json_integer_value(value), 2 << 20);
    value = json_object_get(json_object_get(first, "expert"), "bytes_per_s");
    assert_true(json_real_value(value) == 3e9);
    value = json_object_get(json_object_get(first, "place"), "drives");
    value = json_object_get(json_object_get(json_array_get(value, 0), "pcie"), "now");
    assert_int_equal(json_integer_value(json_object_get(value, "generation")), 4);
    value = json_object_get(json_object_get(first, "sustained"), "bytes_per_s");
    assert_int_equal(json_array_size(value), 40);
    assert_int_equal(json_array_size(json_object_get(root, "meaning")), 2);
    assert_true(json_real_value(json_object_get(root, "bytes_per_s")) == 5e9);
    json_decref(root);
    free(text);
}

static void a_path_that_is_not_utf8_is_refused_as_json(void **state) {
    (void)state;
    strcpy(b.drives[0].target.name, "/one/\xff");
    FILE *f = tmpfile();
    assert_false(bench_json(&b, f));
    fclose(f);
}

static void the_page_needs_nothing_from_elsewhere_and_escapes_names(void **state) {
    (void)state;
    fill_everything();
    strcpy(b.drives[0].target.name, "/one/<script>alert(\"1\")&amp");
    char *text = printed(bench_html);
    says(text, "<!doctype html>");
    says(text, "/one/&lt;script&gt;alert(&quot;1&quot;)&amp;amp");
    says(text, "Tokens a second, at most");
    says(text, "Experts, read on and on");
    says(text, "Latency of random reads of 4 KiB");
    says(text, "</html>");
    static const char *const strangers[] = { "<script", "http", "src=", "@import",
                                             "url(",    "nan",  "inf\"" };
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        if (strstr(text, strangers[i]))
            fail_msg("the page has '%s'", strangers[i]);
    size_t opened = 0, closed = 0;
    for (const char *at = text; (at = strstr(at, "<svg")); at++)
        opened++;
    for (const char *at = text; (at = strstr(at, "</svg>")); at++)
        closed++;
    assert_int_equal(opened, closed);
    assert_true(opened >= 10);
    free(text);
}

static void reports_of_nothing_measured_are_whole(void **state) {
    (void)state;
    b.interrupted = true;
    char *text = printed(bench_text), *json = printed(print_json), *html = printed(bench_html);
    says(text, "interrupted: what was measured until then");
    json_t *root = json_loads(json, 0, NULL);
    assert_non_null(root);
    assert_true(json_is_true(json_object_get(root, "interrupted")));
    assert_null(json_object_get(root, "meaning"));
    says(html, "</html>");
    json_decref(root);
    free(text);
    free(json);
    free(html);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_two_drives, remove_drives)
    const struct CMUnitTest tests[] = {
        TEST(a_good_drive_in_a_good_slot_has_no_findings),
        TEST(a_slot_that_holds_a_drive_back_is_named),
        TEST(a_link_that_came_up_too_slow_is_told_from_a_slow_slot),
        TEST(what_shares_its_link_is_told),
        TEST(a_narrow_uplink_is_told),
        TEST(encryption_is_told_with_what_it_costs),
        TEST(a_raid_that_is_no_raid0_is_told),
        TEST(sata_usb_and_virtual_drives_are_told),
        TEST(a_file_system_that_costs_something_is_told),
        TEST(growing_hot_is_told),
        TEST(two_paths_on_one_drive_are_told),
        TEST(memory_that_is_not_registered_is_told),
        TEST(drives_that_hinder_each_other_are_told),
        TEST(figures_are_those_of_the_models),
        TEST(conclusions_are_drawn_from_all_drives_together),
        TEST(the_text_has_all_that_was_measured_in_a_hundred_columns),
        TEST(the_json_has_all_that_was_measured),
        TEST(a_path_that_is_not_utf8_is_refused_as_json),
        TEST(the_page_needs_nothing_from_elsewhere_and_escapes_names),
        TEST(reports_of_nothing_measured_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
