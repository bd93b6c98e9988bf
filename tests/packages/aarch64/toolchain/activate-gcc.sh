# conda-forge's compilers set these, and write the same file for Meson
export CC=aarch64-conda-linux-gnu-gcc AR=aarch64-conda-linux-gnu-ar NM=aarch64-conda-linux-gnu-nm
export RANLIB=aarch64-conda-linux-gnu-ranlib STRIP=aarch64-conda-linux-gnu-strip
export CFLAGS="-isystem ${PREFIX:-$CONDA_PREFIX}/include"
export CPPFLAGS="-isystem ${PREFIX:-$CONDA_PREFIX}/include"
export LDFLAGS="-L${PREFIX:-$CONDA_PREFIX}/lib -Wl,-rpath,${PREFIX:-$CONDA_PREFIX}/lib -Wl,-rpath-link,${PREFIX:-$CONDA_PREFIX}/lib -Wl,--strip-debug"
export MESON_ARGS="--cross-file=@PREFIX@/meson-cross-file.ini"
