/* tests/kernels/each_form.h - the same tests with every form of the loops that this machine has: what they
 * compare with knows nothing of forms. */
#ifndef SLUICE_TESTS_KERNELS_EACH_FORM_H
#define SLUICE_TESTS_KERNELS_EACH_FORM_H

#include "kernels/ops.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

/* Make this backend use the form whose turn it is. */
void each_form_use(struct ops *ops);

/* The next form's turn; its name, or NULL after the last. */
const char *each_form_next(void);

/* For main: how many tests failed, in all forms. */
#define each_form_run(tests)                                                                       \
    ({                                                                                             \
        int each_form_failed = 0;                                                                  \
        for (const char *name; (name = each_form_next());) {                                       \
            print_message("[   FORM   ] %s\n", name);                                              \
            each_form_failed += cmocka_run_group_tests(tests, NULL, NULL);                         \
        }                                                                                          \
        each_form_failed;                                                                          \
    })

#endif
