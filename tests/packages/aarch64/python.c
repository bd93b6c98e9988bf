/* $PREFIX/bin/python of an aarch64 prefix on this machine: qemu runs the real one. Static,
   because the repro preloads libraries for aarch64, and this machine's loader refuses them. */
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    /* -0: Python finds its prefix by the name that it was started by */
    char *start[] = {QEMU, "-L", ROOT, "-0", argv[0], PROGRAM};
    int known = sizeof start / sizeof *start;
    char **command = calloc(known + argc, sizeof *command);
    for (int i = 0; i < known; i++)
        command[i] = start[i];
    for (int i = 1; i < argc; i++)
        command[known + i - 1] = argv[i];
    execv(QEMU, command);
    return 127;
}
