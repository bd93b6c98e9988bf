/* What a static libstdc++ that was built on a newer glibc wants of it. As in
   glibc's own libc_nonshared.a: linked in where it is needed, and hidden. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

#pragma GCC visibility push(hidden)

/* 2.32; false is always safe: reference counts are then atomic */
char __libc_single_threaded;

/* 2.38; of gcc 14's: strtoul that reads C23's 0b, too */
unsigned long __isoc23_strtoul(const char *text, char **end, int base)
{
    return strtoul(text, end, base);
}

/* 2.36; of std::random_device */
uint32_t arc4random(void)
{
    uint32_t word;
    while (getrandom(&word, sizeof word, 0) != sizeof word)
        if (errno != EINTR)
            abort();
    return word;
}
