#include "kernels/cpu/cpu.h"
#include "kernels/cpu/internal.h"

#include <omp.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MAX_THREADS 1024
#define HUGE_BYTES  ((size_t)2 << 20) /* from two of these on, ask for huge pages: weights stream */

/* One allocation, in a list from the newest. A few hundred at most, and released at the end. */
struct cpu_allocation {
    struct cpu_allocation *next;
    void *base;
};

static void *aligned(uint64_t bytes) {
    bool large = bytes >= 2 * HUGE_BYTES;
    size_t align = large ? HUGE_BYTES : 64;
    if (bytes > SIZE_MAX - align)
        return NULL;
    size_t rounded = (bytes + align - 1) / align * align;
    void *base = aligned_alloc(align, rounded ? rounded : align);
    if (base && large)
        madvise(base, rounded, MADV_HUGEPAGE); // a wish: what the system refuses costs speed only
    return base;
}

static enum status backend_alloc(struct ops *ops, uint64_t bytes, struct mem *out,
                                 struct err *err) {
    struct cpu_ops *c = cpu_of(ops);
    *out = mem_none();
    struct cpu_allocation *a = malloc(sizeof *a);
    void *base = a ? aligned(bytes) : NULL;
    if (!base) {
        free(a);
        return err_set(err, ERR_MEMORY, "cannot allocate %.1f MiB for the CPU backend",
                       (double)bytes / (1 << 20));
    }
    a->base = base;
    a->next = c->allocations;
    c->allocations = a;
    out->address = (uint64_t)(uintptr_t)base;
    return OK;
}

static void backend_release(struct ops *ops, struct mem m) {
    if (!m.address)
        return;
    for (struct cpu_allocation **at = &cpu_of(ops)->allocations; *at; at = &(*at)->next)
        if ((*at)->base == cpu_ptr(m)) {
            struct cpu_allocation *a = *at;
            *at = a->next;
            free(a->base);
            free(a);
            return;
        }
    assert(!"released memory that was not allocated here");
}

static enum status backend_host_alloc(struct ops *ops, const struct pinned_options *options,
                                      struct pinned *out, struct err *err) {
    (void)ops;
    return pinned_open(out, options, err);
}

static void backend_host_release(struct ops *ops, struct pinned *p) {
    (void)ops;
    pinned_close(p);
}

static struct mem backend_host_mem(struct ops *ops, const void *host) {
    (void)ops;
    struct mem m = { (uint64_t)(uintptr_t)host };
    return m;
}

static void backend_upload(struct ops *ops, struct mem dst, const void *src, uint64_t bytes) {
    (void)ops;
    if (bytes)
        memcpy(cpu_ptr(dst), src, bytes);
}

static enum status backend_download(struct ops *ops, void *dst, struct mem src, uint64_t bytes,
                                    struct err *err) {
    (void)ops, (void)err;
    if (bytes)
        memcpy(dst, cpu_ptr(src), bytes);
    return OK;
}

static void backend_copy(struct ops *ops, struct mem dst, struct mem src, uint64_t bytes) {
    (void)ops;
    if (bytes)
        memmove(cpu_ptr(dst), cpu_ptr(src), bytes);
}

static struct event backend_record(struct ops *ops) {
    (void)ops;
    return event_now(); // ops are done when they return
}

static void backend_close(struct ops *ops) {
    struct cpu_ops *c = cpu_of(ops);
    while (c->allocations) {
        struct cpu_allocation *a = c->allocations;
        c->allocations = a->next;
        free(a->base);
        free(a);
    }
    free(c->scratch);
    free(c);
}

static const struct ops_table cpu_table = {
    .name = "cpu",
    .close = backend_close,
    .alloc = backend_alloc,
    .release = backend_release,
    .host_alloc = backend_host_alloc,
    .host_release = backend_host_release,
    .host_mem = backend_host_mem,
    .upload = backend_upload,
    .download = backend_download,
    .copy = backend_copy,
    .record = backend_record,
    .embed = cpu_embed,
    .hc_pre = cpu_hc_pre,
    .hc_post = cpu_hc_post,
    .hc_head = cpu_hc_head,
    .rms_norm = cpu_rms_norm,
    .matmul = cpu_matmul,
    .rope_table = cpu_rope_table,
    .rotate = cpu_rotate,
    .kv_pack = cpu_kv_pack,
    .window_store = cpu_window_store,
    .compress = cpu_compress,
    .hadamard = cpu_hadamard,
    .index_topk = cpu_index_topk,
    .attention = cpu_attention,
    .route = cpu_route,
    .expert_ffn = cpu_expert_ffn,
    .moe_sum = cpu_moe_sum,
    .add_to_streams = cpu_add_to_streams,
    .gather_rows = cpu_gather_rows,
};

static uint32_t thread_count(const struct cpu_options *options) {
    uint32_t n = options->n_threads ? options->n_threads : (uint32_t)omp_get_num_procs();
    return n < MAX_THREADS ? n : MAX_THREADS;
}

uint64_t cpu_scratch_bytes(const struct cpu_options *options) {
    return thread_count(options) * (uint64_t)CPU_THREAD_BYTES + CPU_SHARED_BYTES;
}

enum status cpu_open(struct ops **out, const struct cpu_options *options, struct err *err) {
    *out = NULL;
    uint32_t n = thread_count(options);
    const struct cpu_forms *forms;
    if (cpu_forms_choose(options->isa, &forms, err) != OK)
        return err->status;
    struct cpu_ops *c = calloc(1, sizeof *c);
    if (c)
        c->scratch = aligned_alloc(64, cpu_scratch_bytes(options));
    if (!c || !c->scratch) {
        free(c);
        return err_set(err, ERR_MEMORY,
                       "cannot allocate the scratch of %u threads: fewer threads need less", n);
    }
    c->ops.table = &cpu_table;
    c->ops.exact = options->exact;
    c->n_threads = (int)n;
    c->forms = forms;
    *out = &c->ops;
    return OK;
}

const char *cpu_form_name(struct ops *ops) {
    return cpu_of(ops)->forms->name;
}

uint32_t cpu_thread_count(struct ops *ops) {
    return (uint32_t)cpu_of(ops)->n_threads;
}
