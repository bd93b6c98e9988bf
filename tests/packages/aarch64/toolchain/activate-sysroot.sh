# by its name after the scripts of the compilers; the bootstrap channel's recipes/sysroot
# says why each argument is there
export CONDA_BUILD_SYSROOT=@SYSROOT@
export LDFLAGS="$LDFLAGS -static-libstdc++ -Wl,--exclude-libs,libstdc++.a:libc_nonshared.a -Wl,-z,defs -Wl,--allow-shlib-undefined -Wl,@@SYSROOT@/usr/lib/python-names"
