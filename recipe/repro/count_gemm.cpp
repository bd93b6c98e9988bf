// A library for LD_PRELOAD: one line on stderr for each call of cblas_dgemm,
// which is then forwarded to the BLAS that the caller is linked to.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  // dladdr, RTLD_NEXT
#endif
#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

// What the dynamic linker would have bound `name` to, had we not been there:
// first the global scope, then that of the object which holds `caller`. The
// second is what finds a BLAS: Python opens extensions with RTLD_LOCAL, so the
// libraries they need are invisible to RTLD_NEXT.
static void *next_definition(const char *name, void *caller) {
    if (void *found = dlsym(RTLD_NEXT, name)) {
        return found;
    }
    Dl_info object;
    if (dladdr(caller, &object) != 0) {
        if (void *handle = dlopen(object.dli_fname, RTLD_LAZY | RTLD_NOLOAD)) {
            if (void *found = dlsym(handle, name)) {
                return found;
            }
        }
    }
    dprintf(STDERR_FILENO, "count_gemm: found no %s to forward to\n", name);
    std::abort();
}

// dprintf, because it is unbuffered: the line is out even if the call hangs.
#define COUNTED(NAME, INT)                                                                       \
    extern "C" void NAME(int order, int transa, int transb, INT m, INT n, INT k, double alpha,   \
                         const double *a, INT lda, const double *b, INT ldb, double beta,        \
                         double *c, INT ldc) {                                                   \
        dprintf(STDERR_FILENO, #NAME " %lldx%lldx%lld\n", (long long)m, (long long)n,            \
                (long long)k);                                                                   \
        auto next = (decltype(&NAME))next_definition(#NAME, __builtin_return_address(0));        \
        next(order, transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);               \
    }

COUNTED(cblas_dgemm, int)                // MKL, OpenBLAS, libcblas: 32-bit integers
COUNTED(cblas_dgemm_64, std::int64_t)    // MKL with 64-bit integers
COUNTED(cblas_dgemm64_, std::int64_t)    // OpenBLAS with 64-bit integers
COUNTED(scipy_cblas_dgemm, int)          // scipy-openblas32
COUNTED(scipy_cblas_dgemm64_, std::int64_t)  // scipy-openblas64: the wheels on PyPI
