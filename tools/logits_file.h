/* tools/logits_file.h - logits of every position as a safetensors file.
 *
 * `logits` F32 [T,V] and, with a draft block, `mtp.logits` F32 [T-1,V]. Rows are written as they
 * come, to a file of another name that takes its own once it is complete: a run that is
 * interrupted leaves nothing that looks finished. A device (/dev/null) is written as it is. */
#ifndef SLUICE_TOOLS_LOGITS_FILE_H
#define SLUICE_TOOLS_LOGITS_FILE_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct logits_file {
    int fd;               /* -1: closed */
    char *path, *partial; /* no partial: `path` itself is written, a device */
    uint64_t header_bytes, row_bytes, n_rows;
};

/* ERR_IO (a full disk is found here: the space is reserved). Close after any result. */
enum status logits_file_open(struct logits_file *f, const char *path, uint32_t n_rows,
                             uint32_t vocab, bool with_draft, struct err *err);
enum status logits_file_write(struct logits_file *f, bool draft, uint32_t row, const float *logits,
                              struct err *err);
/* Everything is written: give the file its name. */
enum status logits_file_finish(struct logits_file *f, struct err *err);
void logits_file_close(struct logits_file *f); /* removes what is unfinished */

#ifdef __cplusplus
}
#endif
#endif
