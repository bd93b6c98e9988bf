export CC="gcc"
export AR=ar NM=nm RANLIB=ranlib STRIP=strip
export CFLAGS="-isystem ${PREFIX:-$CONDA_PREFIX}/include"
export CPPFLAGS="-isystem ${PREFIX:-$CONDA_PREFIX}/include"
# found again by rpath, which the builder makes relative
export LDFLAGS="-L${PREFIX:-$CONDA_PREFIX}/lib -Wl,-rpath,${PREFIX:-$CONDA_PREFIX}/lib -Wl,-rpath-link,${PREFIX:-$CONDA_PREFIX}/lib -Wl,--strip-debug"
