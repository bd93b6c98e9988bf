// A library for LD_PRELOAD that makes users of MKL out of numpy's released wheels:
// the product of their own OpenBLAS is done by the library that RELEASED_MKL names.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

using Product = void(int order, int transa, int transb, int64_t m, int64_t n, int64_t k, double alpha,
                     const double *a, int64_t lda, const double *b, int64_t ldb, double beta, double *c,
                     int64_t ldc);

static Product *open_mkl() {
    const char *name = std::getenv("RELEASED_MKL");
    void *mkl = name != nullptr ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr;
    auto product = mkl != nullptr ? (Product *)dlsym(mkl, "cblas_dgemm_64") : nullptr;
    if (product == nullptr) {
        dprintf(STDERR_FILENO, "mkl_shim: RELEASED_MKL=%s: %s\n", name ? name : "", name ? dlerror() : "not set");
        std::_Exit(EXIT_FAILURE);
    }
    return product;
}

extern "C" void scipy_cblas_dgemm64_(int order, int transa, int transb, int64_t m, int64_t n, int64_t k,
                                     double alpha, const double *a, int64_t lda, const double *b,
                                     int64_t ldb, double beta, double *c, int64_t ldc) {
    static Product *const product = open_mkl();
    product(order, transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
