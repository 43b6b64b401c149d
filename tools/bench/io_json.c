#include "tools/bench/io.h"
#include "tools/bench/io_meaning.h"
#include "tools/bench/report.h"

#include <string.h>

static json_t *text(const char *s) {
    return json_string(s);
}

// --- one measurement -----------------------------------------------------------------------------

static json_t *result(const struct read_result *r) {
    if (r->rate <= 0)
        return json_null();
    json_t *o = json_object();
    report_put(o, "shape", text(read_shape_name(r->setup.shape)));
    report_put(o, "block_bytes", report_whole(r->setup.block_bytes));
    report_put(o, "depth", report_whole(r->setup.depth));
    if (r->setup.shape == SHAPE_EXPERT)
        report_put(o, "queued", report_whole(r->setup.ahead));
    report_put(o, "direct", json_boolean(!r->setup.buffered));
    report_put(o, "registered", json_boolean(r->registered));
    report_put(o, "bytes_per_s", json_real(r->rate));
    report_put(o, "seconds", json_real(r->seconds));
    report_put(o, "bytes", report_whole(r->bytes));
    report_put(o, "reads", report_whole(r->n_reads));
    report_put(o, "cpu_s", json_real(r->cpu_s));
    report_put(o, "machine_cpu_s", json_real(r->machine_s));
    report_put(o, "latency_us",
               json_pack("{sf sf sf sf sf}", "p50", r->p50_ns * 1e-3, "p90", r->p90_ns * 1e-3,
                         "p99", r->p99_ns * 1e-3, "p999", r->p999_ns * 1e-3, "longest",
                         r->most_ns * 1e-3));
    return o;
}

// --- where it lies -------------------------------------------------------------------------------

static json_t *link_of(struct pcie_link link) {
    return pcie_generation(link)
               ? json_pack("{so so sf}", "generation", report_whole(pcie_generation(link)), "lanes",
                           report_whole(link.lanes), "bytes_per_s", pcie_rate(link))
               : json_null();
}

static json_t *drive(const struct drive *v) {
    static const char *const places[] = { "unknown", "processor", "chipset", "switch" };
    json_t *o = json_object();
    report_put(o, "device", text(v->device));
    report_put(o, "model", text(v->model));
    report_put(o, "bus", text(drive_bus_name(v->bus)));
    report_put(o, "bytes", report_whole(v->bytes));
    report_put(o, "rotational", json_boolean(v->rotational));
    report_put(o, "removable", json_boolean(v->removable));
    report_put(o, "port_bytes_per_s", v->port_rate > 0 ? json_real(v->port_rate) : json_null());
    if (v->pcie.address[0]) {
        json_t *p = json_object();
        report_put(p, "address", text(v->pcie.address));
        report_put(p, "now", link_of(v->pcie.now));
        report_put(p, "drive", link_of(v->pcie.drive));
        report_put(p, "slot", link_of(v->pcie.slot));
        report_put(p, "narrowest", link_of(v->pcie.narrow));
        report_put(p, "lanes_of", text(places[v->pcie.place]));
        report_put(p, "external", json_boolean(v->pcie.external));
        report_put(o, "pcie", p);
    } else {
        report_put(o, "pcie", json_null());
    }
    return o;
}

static json_t *place(const struct bench_drive *d) {
    const struct place *p = &d->target.place;
    json_t *o = json_object(), *layers = json_array(), *drives = json_array();
    double link = place_link_rate(p);
    for (uint32_t i = 0; i < p->stack.n_layers; i++)
        json_array_append_new(layers, json_pack("{ss ss ss}", "what", p->stack.layers[i].what,
                                                "name", p->stack.layers[i].name, "device",
                                                p->stack.layers[i].device));
    for (uint32_t i = 0; i < p->stack.n_drives; i++)
        json_array_append_new(drives, drive(&p->stack.drives[i]));
    report_put(o, "filesystem", text(p->mount.filesystem));
    report_put(o, "layers", layers);
    report_put(o, "drives", drives);
    report_put(o, "link_bytes_per_s", link > 0 ? json_real(link) : json_null());
    report_put(o, "direct", json_boolean(!d->buffered));
    report_put(o, "file_bytes", report_whole(p->device.bytes));
    report_put(o, "pieces",
               p->map.known && p->map.whole ? report_whole(p->map.n_pieces) : json_null());
    return o;
}

// --- a drive -------------------------------------------------------------------------------------

static json_t *sustained(const struct bench_sustained *s) {
    json_t *rates = json_array(), *celsius = json_array();
    bool told = false;
    for (uint32_t i = 0; i < s->n; i++) {
        json_array_append_new(rates, json_real(s->rates[i]));
        json_array_append_new(celsius, s->celsius[i] > 0 ? json_real(s->celsius[i]) : json_null());
        told |= s->celsius[i] > 0;
    }
    if (!told)
        json_array_clear(celsius);
    if (s->n > 0)
        return json_pack("{sf so so}", "span_s", s->span_s, "bytes_per_s", rates, "celsius",
                         celsius);
    json_decref(rates);
    json_decref(celsius);
    return json_null();
}

static json_t *candidates(const struct bench_drive *d) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < d->n_candidates; i++) {
        const struct bench_candidate *c = &d->candidates[i];
        json_t *turns = json_array();
        if (c->rate <= 0) {
            json_decref(turns);
            continue;
        }
        for (uint32_t k = 0; k < c->n_turns; k++)
            json_array_append_new(turns, json_real(c->turns[k]));
        json_array_append_new(
            list, json_pack("{so so sf so}", "chunk_bytes", report_whole(c->chunk_bytes), "depth",
                            report_whole(c->depth), "bytes_per_s", c->rate, "turns", turns));
    }
    return list;
}

static json_t *one_drive(const struct bench_drive *d, bool single) {
    json_t *o = json_object(), *points = json_array(), *findings = json_array();
    report_put(o, "path", text(d->target.path));
    report_put(o, "name", text(d->target.name));
    report_put(o, "place", place(d));
    for (uint32_t i = 0; i < d->n_points; i++)
        json_array_append_new(points, result(&d->points[i]));
    for (uint32_t i = 0; i < d->n_findings; i++)
        json_array_append_new(findings, text(d->findings[i]));
    report_put(o, "points", points);
    report_put(o, "findings", findings);
    if (single)
        return o;
    report_put(o, "chosen",
               d->depth ? json_pack("{so so sf sf}", "chunk_bytes", report_whole(d->chunk_bytes),
                                    "depth", report_whole(d->depth), "bytes_per_s", d->tuned_rate,
                                    "default_bytes_per_s", d->default_rate)
                        : json_null());
    report_put(o, "candidates", candidates(d));
    report_put(o, "expert", result(&d->expert));
    report_put(o, "expert_alone", result(&d->alone));
    report_put(o, "expert_buffered", result(&d->buffered_expert));
    report_put(o, "expert_unregistered", result(&d->plain_expert));
    report_put(o, "together", result(&d->together));
    report_put(o, "sustained", sustained(&d->sustained));
    report_put(o, "write_bytes_per_s",
               d->target.write_rate > 0 ? json_real(d->target.write_rate) : json_null());
    report_put(o, "celsius",
               d->celsius_after > 0
                   ? json_pack("{sf sf}", "before", d->celsius_before, "after", d->celsius_after)
                   : json_null());
    report_put(o, "skipped", report_whole(d->n_skipped));
    return o;
}

// --- what it means -------------------------------------------------------------------------------

static json_t *meaning(double rate) {
    struct meaning_model models[MEANING_MODELS];
    json_t *list = json_array();
    meaning_models(models);
    for (int m = 0; m < MEANING_MODELS; m++) {
        json_t *rows = json_array();
        for (int i = 0; i < MEANING_HITS; i++)
            json_array_append_new(
                rows, json_pack("{sf sf}", "hits", meaning_hits[i], "tokens_per_s",
                                meaning_tokens_per_s(&models[m], rate, meaning_hits[i])));
        json_array_append_new(list,
                              json_pack("{ss so so so sf}", "model", models[m].name, "token_bytes",
                                        report_whole(models[m].token_bytes), "sweep_bytes",
                                        report_whole(models[m].sweep_bytes), "at_most", rows,
                                        "sweep_s", meaning_sweep_s(&models[m], rate)));
    }
    return list;
}

bool bench_json(const struct bench_io *b, FILE *out) {
    json_t *root = json_object(), *drives = json_array();
    for (uint32_t i = 0; i < b->n_drives; i++)
        json_array_append_new(drives, one_drive(&b->drives[i], b->single));
    report_put(root, "version", text(SLUICE_VERSION));
    report_put(root, "engine", text(b->engine));
    report_put(root, "interrupted", json_boolean(b->interrupted));
    report_put(root, "took_s", json_real(b->took_s));
    report_put(root, "drives", drives);
    if (!b->single && bench_rate(b) > 0) {
        report_put(root, "bytes_per_s", json_real(bench_rate(b)));
        report_put(root, "meaning", meaning(bench_rate(b)));
    }
    // A name that is not UTF-8 leaves a member out.
    bool complete = true;
    for (uint32_t i = 0; i < b->n_drives; i++)
        complete &= json_object_get(json_array_get(drives, i), "name") != NULL;
    complete = complete && json_dumpf(root, out, JSON_INDENT(2)) == 0 && putc('\n', out) != EOF;
    json_decref(root);
    return complete;
}
