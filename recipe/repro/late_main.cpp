// A library for LD_PRELOAD that decides the race. MKL looks a kernel up by name
// when it first needs it. If the main thread, which holds the loader's lock
// inside dlopen(), comes first, nothing hangs. Here it is late, every time: a
// worker that looks the same kernel up comes first and waits for the lock.
// Only the timing differs from a run without this library.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  // dlvsym, gettid
#endif
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

static const useconds_t LATE = 50 * 1000;  // microseconds; a worker needs less than one millisecond

static decltype(&dlsym) next_dlsym;

__attribute__((noinline)) static void before_lookup(const char *name) {
    if (next_dlsym == nullptr) {
        // MKL is x86-64 only, where this is dlsym's oldest version
        next_dlsym = (decltype(next_dlsym))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    }
    if (std::strncmp(name, "mkl_blas_", 9) == 0 && syscall(SYS_gettid) == getpid()) {
        usleep(LATE);
    }
}

extern "C" void *dlsym(void *handle, const char *name) noexcept {
    before_lookup(name);
    // A jump, not a call (so compiled with -O2): RTLD_NEXT means the object
    // after the caller, and that is not to be this library.
    return next_dlsym(handle, name);
}
