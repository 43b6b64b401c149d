#include "kernels/cpu/forms.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* What the processor has and the system keeps (the builtin asks for both). F16C has a name of its own
 * only in newer compilers: leaf 1, ecx, bit 29. */
uint32_t cpu_forms_here(const struct cpu_forms *out[CPU_MAX_FORMS]) {
    uint32_t n = 0;
    out[n++] = &cpu_forms_scalar;
#if defined(__x86_64__)
    unsigned a, b, c = 0, d;
    bool has_f16c = __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
    if (!has_f16c || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return n;
    out[n++] = &cpu_forms_avx2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return n;
    out[n++] = &cpu_forms_avx512;
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi"))
        out[n++] = &cpu_forms_vnni;
    if (out[n - 1] == &cpu_forms_vnni && __builtin_cpu_is("amd"))
        out[n++] = &cpu_forms_zen;
#endif
    return n;
}

enum status cpu_forms_choose(enum cpu_isa isa, const struct cpu_forms **out, struct err *err) {
    // How many forms each choice reaches up to, in the order of cpu_forms_here.
    static const uint32_t most[] = {
        [CPU_AUTO] = CPU_MAX_FORMS, [CPU_SCALAR] = 1, [CPU_AVX2] = 2, [CPU_AVX512] = CPU_MAX_FORMS
    };
    static const uint32_t least[] = {
        [CPU_AUTO] = 1, [CPU_SCALAR] = 1, [CPU_AVX2] = 2, [CPU_AVX512] = 3
    };
    const struct cpu_forms *here[CPU_MAX_FORMS];
    uint32_t n = cpu_forms_here(here);
    if (n < least[isa])
        return err_set(err, ERR_USAGE, "this machine cannot run --cpu %s: the most it can is %s",
                       isa == CPU_AVX2 ? "avx2" : "avx512", here[n - 1]->name);
    *out = here[(n < most[isa] ? n : most[isa]) - 1];
    return OK;
}
