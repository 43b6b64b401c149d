/* tools/together.h - several prompts answered at a time: `sluice run -p A -p B`.
 *
 * Their sequences decode together (src/flight.h), and each says what it would say alone. The answers
 * are shown in the order of the prompts (tools/turns.h). */
#ifndef SLUICE_TOOLS_TOGETHER_H
#define SLUICE_TOOLS_TOGETHER_H

#include "tools/reply.h"
#include "tools/turns.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The engine was opened for n sequences and their groups. out[n] is filled in whatever happens, and
 * the caller's to free. An error of one stops all; what all have said until then is shown.
 * Errors: as flight_add (which names the prompt, then nothing has been shown), flight_run, and the
 * stage's; CANCELLED. *began: there is something to account for. */
enum status answer_together(struct engine *engine, const struct token_ids *const *prompts,
                            uint32_t n, const struct turns_stage *stage, struct generated *out,
                            bool *began, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
