#include "src/routing_trace.h"

#include "io/small_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIXED_BYTES 32 // of the header, before the kinds
#define STEP_BYTES  8  // of a step, before its rows
#define ROW_BYTES   12

static const char magic[8] = { 's', 'l', 'r', 'o', 'u', 't', 'e', '\n' };

// --- the format ----------------------------------------------------------------------------------

static void put(uint8_t *to, uint64_t value, uint32_t n_bytes) {
    for (uint32_t i = 0; i < n_bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *from, uint32_t n_bytes) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < n_bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static uint32_t id_bytes(const struct routing_header *h) {
    return h->n_experts <= 256 ? 1 : 2;
}

static uint64_t step_bytes(const struct routing_header *h, uint32_t n_rows, uint32_t n_blocks) {
    // At most 2^20 rows of 12 + 256 · 32 · 2 bytes: far from an overflow.
    return STEP_BYTES +
           (uint64_t)n_rows * (ROW_BYTES + (uint64_t)n_blocks * h->n_chosen * id_bytes(h));
}

void routing_header_init(struct routing_header *h, const struct config *c, uint32_t n_blocks,
                         uint64_t expert_bytes) {
    assert(n_blocks <= CONFIG_MAX_LAYERS);
    *h = (struct routing_header){ .n_blocks = n_blocks,
                                  .n_experts = c->n_experts,
                                  .n_chosen = c->n_chosen,
                                  .expert_bytes = expert_bytes };
    for (uint32_t block = 0; block < n_blocks; block++)
        h->kind[block] = (uint8_t)((config_is_hash(c, block) ? ROUTING_HASH : 0) |
                                   (block >= c->n_layers ? ROUTING_DRAFT : 0));
}

uint32_t routing_n_trunk(const struct routing_header *h) {
    uint32_t n = 0;
    while (n < h->n_blocks && !(h->kind[n] & ROUTING_DRAFT))
        n++;
    return n;
}

// --- writing -------------------------------------------------------------------------------------

struct routing_writer {
    int fd;
    char *path;
    bool is_new;     // made by us
    bool is_file;    // a regular one: it can be cut
    uint64_t offset; // whole up to here
    uint64_t n_steps;
    struct err err; // what ended the recording

    struct routing_header header;
    uint32_t max_rows;
    uint8_t *step; // being gathered, as it will be in the file
    uint32_t n_rows, n_blocks;
    uint32_t n_seen; // blocks of it
};

enum status routing_writer_open(struct routing_writer **out, const char *path, struct err *err) {
    struct stat st;
    struct routing_writer *w = *out = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        free(w);
        *out = NULL;
        return err_set(err, ERR_MEMORY, "%s: no memory for a trace", path);
    }
    bool is_new = lstat(path, &st) != 0;
    // Not cut to nothing yet: whatever is there stays if no run comes of it.
    w->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        err_set(err, ERR_IO, "%s: cannot be made: %s", path, strerror(errno));
        routing_writer_close(w);
        *out = NULL;
        return err->status;
    }
    w->is_new = is_new;
    w->is_file = fstat(w->fd, &st) == 0 && S_ISREG(st.st_mode);
    return OK;
}

// All of it, or what is there of it is taken back.
static void append(struct routing_writer *w, const uint8_t *data, uint64_t bytes) {
    uint64_t done = 0;
    while (done < bytes) {
        ssize_t n = write(w->fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int why = n < 0 ? errno : ENOSPC;
            bool cut = w->is_file && ftruncate(w->fd, (off_t)w->offset) == 0;
            err_set(&w->err, ERR_IO,
                    "%s: cannot be written at byte %llu: %s: %llu steps are recorded%s", w->path,
                    (unsigned long long)(w->offset + done), strerror(why),
                    (unsigned long long)w->n_steps,
                    cut || done == 0 ? "" : ", and a piece of the next");
            return;
        }
        done += (uint64_t)n;
    }
    w->offset += bytes;
}

enum status routing_writer_start(struct routing_writer *w, const struct routing_header *header,
                                 uint32_t max_rows, struct err *err) {
    uint8_t bytes[FIXED_BYTES + CONFIG_MAX_LAYERS];
    assert(max_rows >= 1 && max_rows <= ROUTING_MAX_ROWS);
    w->header = *header;
    w->max_rows = max_rows;
    w->step = malloc(step_bytes(header, max_rows, header->n_blocks));
    if (!w->step)
        return err_set(err, ERR_MEMORY, "%s: no memory for a step of %u rows", w->path, max_rows);
    memcpy(bytes, magic, sizeof magic);
    put(bytes + 8, ROUTING_VERSION, 4);
    put(bytes + 12, header->n_blocks, 4);
    put(bytes + 16, header->n_experts, 4);
    put(bytes + 20, header->n_chosen, 4);
    put(bytes + 24, header->expert_bytes, 8);
    memcpy(bytes + FIXED_BYTES, header->kind, header->n_blocks);
    if (w->is_file && ftruncate(w->fd, 0) != 0)
        return err_set(err, ERR_IO, "%s: cannot be emptied: %s", w->path, strerror(errno));
    w->is_new = false;
    append(w, bytes, FIXED_BYTES + header->n_blocks);
    if (w->err.status != OK) { // handed over now, not by finish
        err_set(err, w->err.status, "%s", w->err.text);
        err_clear(&w->err);
        return err->status;
    }
    return OK;
}

void routing_writer_begin(struct routing_writer *w, uint32_t n_rows, bool draft) {
    assert(w->step && n_rows >= 1 && n_rows <= w->max_rows);
    w->n_rows = n_rows;
    w->n_blocks = draft ? w->header.n_blocks : routing_n_trunk(&w->header);
    w->n_seen = 0;
    put(w->step, w->n_rows, 4);
    put(w->step + 4, w->n_blocks, 4);
}

void routing_writer_rows(struct routing_writer *w, uint32_t first, uint32_t n, uint32_t sequence,
                         uint32_t position, const int32_t *tokens) {
    assert(first + n <= w->n_rows);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *row = w->step + STEP_BYTES + (uint64_t)(first + i) * ROW_BYTES;
        put(row, sequence, 4);
        put(row + 4, position + i, 4);
        put(row + 8, (uint32_t)tokens[i], 4);
    }
}

void routing_writer_experts(struct routing_writer *w, uint32_t block, const int32_t *experts) {
    assert(block < w->n_blocks && block <= w->n_seen && block + 1 >= w->n_seen);
    uint32_t n = w->n_rows * w->header.n_chosen, width = id_bytes(&w->header);
    uint8_t *to = w->step + step_bytes(&w->header, w->n_rows, block);
    for (uint32_t i = 0; i < n; i++)
        put(to + (uint64_t)i * width, (uint32_t)experts[i], width);
    w->n_seen = block + 1;
}

void routing_writer_commit(struct routing_writer *w) {
    assert(w->n_seen == w->n_blocks);
    if (w->err.status != OK)
        return;
    append(w, w->step, step_bytes(&w->header, w->n_rows, w->n_blocks));
    w->n_steps += w->err.status == OK;
}

enum status routing_writer_finish(struct routing_writer *w, struct err *err) {
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0) // where a disk on a network says that it is full
        err_set(&w->err, ERR_IO, "%s: cannot be written: %s", w->path, strerror(errno));
    return w->err.status == OK ? OK : err_set(err, w->err.status, "%s", w->err.text);
}

void routing_writer_close(struct routing_writer *w) {
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->is_new && w->is_file)
        unlink(w->path);
    free(w->step);
    free(w->path);
    free(w);
}

// --- reading -------------------------------------------------------------------------------------

struct routing_reader {
    FILE *file;
    char *path;
    uint64_t bytes; // of the file
    uint64_t offset;
    uint64_t n_steps;
    struct routing_header header;
    uint32_t *memory; // of the step that was handed out: rows [3][n_rows], experts, and its bytes
    uint64_t memory_bytes;
};

// The next n bytes, which the file should have. What it lacks is for the caller to say.
static enum status take(struct routing_reader *r, uint8_t *to, uint64_t n, struct err *err) {
    if (fread(to, 1, n, r->file) == n)
        return OK;
    if (ferror(r->file))
        return err_set(err, ERR_IO, "%s: byte %llu: cannot be read: %s", r->path,
                       (unsigned long long)r->offset, strerror(errno));
    return err_set(err, ERR_TRUNCATED, "%s: byte %llu: the file has become shorter meanwhile",
                   r->path, (unsigned long long)r->offset);
}

static enum status check_header(const struct routing_reader *r, struct err *err) {
    const struct routing_header *h = &r->header;
    if (h->n_blocks < 1 || h->n_blocks > CONFIG_MAX_LAYERS)
        return err_set(err, ERR_INPUT, "%s: byte 12: %u blocks: 1 to %d are possible", r->path,
                       h->n_blocks, CONFIG_MAX_LAYERS);
    if (h->n_experts < 1 || h->n_experts > ROUTING_MAX_EXPERTS)
        return err_set(err, ERR_INPUT, "%s: byte 16: %u experts: 1 to %d are possible", r->path,
                       h->n_experts, ROUTING_MAX_EXPERTS);
    if (h->n_chosen < 1 || h->n_chosen > CONFIG_MAX_CHOSEN || h->n_chosen > h->n_experts)
        return err_set(err, ERR_INPUT, "%s: byte 20: %u experts chosen of %u: 1 to %d are possible",
                       r->path, h->n_chosen, h->n_experts, CONFIG_MAX_CHOSEN);
    return OK;
}

static enum status check_kinds(const struct routing_reader *r, struct err *err) {
    const struct routing_header *h = &r->header;
    for (uint32_t block = 0; block < h->n_blocks; block++) {
        bool is_known = !(h->kind[block] & ~(ROUTING_HASH | ROUTING_DRAFT));
        bool is_draft = h->kind[block] & ROUTING_DRAFT;
        bool after_draft = block > 0 && (h->kind[block - 1] & ROUTING_DRAFT);
        if (!is_known || (is_draft ? block == 0 : after_draft))
            return err_set(err, ERR_INPUT, "%s: byte %u: block %u cannot be of kind %u", r->path,
                           FIXED_BYTES + block, block, h->kind[block]);
    }
    return OK;
}

static enum status read_header(struct routing_reader *r, struct err *err) {
    uint8_t fixed[FIXED_BYTES];
    struct routing_header *h = &r->header;
    uint64_t n = r->bytes < sizeof fixed ? r->bytes : sizeof fixed;
    if (take(r, fixed, n, err) != OK)
        return err->status;
    if (memcmp(fixed, magic, n < sizeof magic ? n : sizeof magic) != 0)
        return err_set(err, ERR_INPUT, "%s: byte 0: not a routing trace", r->path);
    if (n == sizeof fixed && get(fixed + 8, 4) != ROUTING_VERSION)
        return err_set(err, ERR_INPUT, "%s: byte 8: a routing trace of version %u, not of %d",
                       r->path, (uint32_t)get(fixed + 8, 4), ROUTING_VERSION);
    if (n == sizeof fixed) {
        h->n_blocks = (uint32_t)get(fixed + 12, 4);
        h->n_experts = (uint32_t)get(fixed + 16, 4);
        h->n_chosen = (uint32_t)get(fixed + 20, 4);
        h->expert_bytes = get(fixed + 24, 8);
        if (check_header(r, err) != OK)
            return err->status;
    }
    if (r->bytes < FIXED_BYTES + h->n_blocks)
        return err_set(err, ERR_TRUNCATED, "%s: byte %llu: the file ends inside its header",
                       r->path, (unsigned long long)r->bytes);
    if (take(r, h->kind, h->n_blocks, err) != OK)
        return err->status;
    r->offset = FIXED_BYTES + h->n_blocks;
    return check_kinds(r, err);
}

enum status routing_reader_open(struct routing_reader **out, const char *path, struct err *err) {
    int fd;
    uint64_t bytes;
    *out = NULL;
    if (regular_file_open(path, &fd, &bytes, err) != OK)
        return err->status;
    struct routing_reader *r = calloc(1, sizeof *r);
    FILE *file = fdopen(fd, "r");
    char *name = strdup(path);
    if (!r || !file || !name) {
        err_set(err, ERR_MEMORY, "%s: no memory to read it", path);
        if (!file)
            close(fd);
        if (file)
            fclose(file);
        free(name);
        free(r);
        return err->status;
    }
    r->file = file;
    r->path = name;
    r->bytes = bytes;
    if (read_header(r, err) != OK) {
        routing_reader_close(r);
        return err->status;
    }
    *out = r;
    return OK;
}

void routing_reader_close(struct routing_reader *r) {
    if (!r)
        return;
    fclose(r->file);
    free(r->path);
    free(r->memory);
    free(r);
}

const struct routing_header *routing_reader_header(const struct routing_reader *r) {
    return &r->header;
}

static enum status cut_short(const struct routing_reader *r, uint64_t whole, struct err *err) {
    return err_set(err, ERR_TRUNCATED,
                   "%s: byte %llu: the last step is cut short, %llu of its %llu bytes are there; "
                   "the %llu before it are whole",
                   r->path, (unsigned long long)r->offset,
                   (unsigned long long)(r->bytes - r->offset), (unsigned long long)whole,
                   (unsigned long long)r->n_steps);
}

// Room for a step that the file is known to have.
static enum status make_room(struct routing_reader *r, uint64_t bytes, struct err *err) {
    if (bytes <= r->memory_bytes)
        return OK;
    free(r->memory);
    r->memory = malloc(bytes);
    r->memory_bytes = r->memory ? bytes : 0;
    return r->memory ? OK
                     : err_set(err, ERR_MEMORY, "%s: byte %llu: no memory for a step of %llu bytes",
                               r->path, (unsigned long long)r->offset, (unsigned long long)bytes);
}

static enum status decode_experts(const struct routing_reader *r, const struct routing_step *step,
                                  const uint8_t *from, uint16_t *to, struct err *err) {
    const struct routing_header *h = &r->header;
    uint32_t width = id_bytes(h), n = step->n_rows * h->n_chosen;
    uint64_t begin = step->offset + STEP_BYTES + (uint64_t)step->n_rows * ROW_BYTES;
    for (uint64_t i = 0; i < (uint64_t)step->n_blocks * n; i++) {
        uint32_t id = (uint32_t)get(from + i * width, width);
        if (id >= h->n_experts)
            return err_set(err, ERR_INPUT, "%s: byte %llu: block %u: expert %u of %u", r->path,
                           (unsigned long long)(begin + i * width), (uint32_t)(i / n), id,
                           h->n_experts);
        if (i % h->n_chosen > 0 && id < to[i - 1])
            return err_set(err, ERR_INPUT, "%s: byte %llu: block %u: expert %u comes after %u",
                           r->path, (unsigned long long)(begin + i * width), (uint32_t)(i / n), id,
                           to[i - 1]);
        to[i] = (uint16_t)id;
    }
    return OK;
}

// The step's first 8 bytes: how long is it?
static enum status read_size(struct routing_reader *r, struct routing_step *step, uint64_t *bytes,
                             struct err *err) {
    uint8_t fixed[STEP_BYTES];
    if (r->bytes - r->offset < sizeof fixed)
        return cut_short(r, sizeof fixed, err);
    if (take(r, fixed, sizeof fixed, err) != OK)
        return err->status;
    *step = (struct routing_step){ .offset = r->offset,
                                   .n_rows = (uint32_t)get(fixed, 4),
                                   .n_blocks = (uint32_t)get(fixed + 4, 4) };
    if (step->n_rows < 1 || step->n_rows > ROUTING_MAX_ROWS)
        return err_set(err, ERR_INPUT, "%s: byte %llu: a step of %u rows: 1 to %d are possible",
                       r->path, (unsigned long long)r->offset, step->n_rows, ROUTING_MAX_ROWS);
    if (step->n_blocks != r->header.n_blocks && step->n_blocks != routing_n_trunk(&r->header))
        return err_set(err, ERR_INPUT, "%s: byte %llu: a step of %u blocks: the model has %u",
                       r->path, (unsigned long long)r->offset + 4, step->n_blocks,
                       r->header.n_blocks);
    *bytes = step_bytes(&r->header, step->n_rows, step->n_blocks);
    return r->bytes - r->offset < *bytes ? cut_short(r, *bytes, err) : OK;
}

enum status routing_reader_next(struct routing_reader *r, struct routing_step *out,
                                struct err *err) {
    uint64_t bytes = 0;
    if (r->offset == r->bytes)
        return DONE;
    if (read_size(r, out, &bytes, err) != OK)
        return err->status;
    uint64_t n = out->n_rows, n_ids = n * out->n_blocks * r->header.n_chosen;
    if (make_room(r, n * ROW_BYTES + n_ids * 2 + bytes, err) != OK)
        return err->status;
    uint32_t *rows = r->memory;
    uint16_t *experts = (uint16_t *)(rows + 3 * n);
    uint8_t *raw = (uint8_t *)(experts + n_ids);
    if (take(r, raw, bytes - STEP_BYTES, err) != OK)
        return err->status;
    for (uint64_t i = 0; i < n * 3; i++)
        rows[i % 3 * n + i / 3] = (uint32_t)get(raw + i * 4, 4);
    if (decode_experts(r, out, raw + n * ROW_BYTES, experts, err) != OK)
        return err->status;
    out->sequence = rows;
    out->position = rows + n;
    out->token = rows + 2 * n;
    out->experts = experts;
    r->offset += bytes;
    r->n_steps++;
    return OK;
}
