# by its name after the scripts of the compilers
export CFLAGS="$CFLAGS --sysroot=@SYSROOT@"
export CXXFLAGS="$CXXFLAGS --sysroot=@SYSROOT@"
# -B: gcc looks into the machine's library folder before the sysroot's
# static: the machine's libstdc++ needs the machine's glibc; not exported, so
#   that no other library is bound to this copy. Not libgcc: exceptions from one
#   library to another want it shared, and what it is asked for is old.
# -z defs: a symbol that is nowhere is an error here, not when it is imported
# python-names: what an extension may leave undefined, as the python package lists it
# allow-shlib-undefined: the machine's libgcc_s may want what it likes of glibc
export LDFLAGS="$LDFLAGS --sysroot=@SYSROOT@ -B@SYSROOT@/usr/lib -static-libstdc++ -Wl,--exclude-libs,libstdc++.a:libc_nonshared.a -Wl,-z,defs -Wl,--allow-shlib-undefined -Wl,@${PREFIX:-$CONDA_PREFIX}/share/python-names"
