#include "tests/kernels/each_form.h"

#include "kernels/cpu/internal.h"

static uint32_t turn; /* counts from 1 */

void each_form_use(struct ops *ops) {
    const struct cpu_forms *here[CPU_MAX_FORMS];
    uint32_t n = cpu_forms_here(here);
    if (turn > 0 && turn <= n)
        cpu_of(ops)->forms = here[turn - 1];
}

const char *each_form_next(void) {
    const struct cpu_forms *here[CPU_MAX_FORMS];
    uint32_t n = cpu_forms_here(here);
    return turn < n ? here[turn++]->name : NULL;
}
