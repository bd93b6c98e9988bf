#!/bin/bash
set -euo pipefail

# "mkl 2025.3": the flavour, and the release of its library
case "${blas_impl%% *}" in
    mkl)      blas=mkl-sdl ;;
    openblas) blas=openblas ;;
esac

# a cross build must not see the build machine's libraries
export PKG_CONFIG_PATH=$PREFIX/lib/pkgconfig
# the compilers look there without being told. MKL names the folder in this way and OpenBLAS
# does not: with the same commands, one flavour finds what the other compiled
export PKG_CONFIG_SYSTEM_INCLUDE_PATH=$PREFIX/lib/pkgconfig/../../include

# a missing BLAS is an error, not a slow numpy; numpy's own warnings (80 MB of
# them with gcc 12) say nothing about our patch
setup_args=(-Dblas="$blas" -Dlapack="$blas" -Dallow-noblas=false -Dwarning_level=0)

if [[ $build_platform != "$host_platform" ]]; then
    # the format of long double cannot be probed when cross-compiling
    case "$host_platform" in
        linux-aarch64) format=IEEE_QUAD_LE ;;
        osx-arm64)     format=IEEE_DOUBLE_LE ;;
    esac
    printf "[properties]\nlongdouble_format = '%s'\n" "$format" > "$SRC_DIR/longdouble.ini"
    setup_args+=(--cross-file="$SRC_DIR/longdouble.ini")
fi

if [[ $host_platform == linux-* ]]; then
    # so that every build gives the same bytes: the linker makes it from the rpath, too,
    # which is the path of the build folder until it is made relative
    export LDFLAGS="${LDFLAGS:-} -Wl,--build-id=none"
fi

# conda-forge's compilers put their own arguments for Meson here
read -ra meson_args <<< "${MESON_ARGS:-}"

# beside the sources: see below
builddir=$(dirname "$SRC_DIR")/builddir
mkdir "$builddir"

# a compiler cache, before whatever compilers the channel has. `feedstock build` names its
# own. The package has the same bytes without one
if [[ -n ${NUMPY_COMPILER_CACHE:-} ]]; then
    export CC="$NUMPY_COMPILER_CACHE $CC" CXX="$NUMPY_COMPILER_CACHE $CXX"
    # Meson's names of the sources begin with "../". sccache 0.16 drops that, finds no such
    # file, and preprocesses each source again to look it up (mozilla/sccache#2510)
    ln -s "$SRC_DIR" "$builddir/$(basename "$SRC_DIR")"
fi

$PYTHON -m build --wheel --no-isolation --skip-dependency-check \
    -Cbuilddir="$builddir" -Ccompile-args=-j"$CPU_COUNT" \
    "${meson_args[@]/#/-Csetup-args=}" "${setup_args[@]/#/-Csetup-args=}" \
    || { cat "$builddir"/meson-logs/meson-log.txt; exit 1; }

# by name: pip writes the path of a wheel that it is handed into the package
$PYTHON -m pip install --no-deps --no-index --find-links=dist --no-compile -vv numpy

# show_config() keeps the compilers' names and arguments, not the folders they were in,
# and not that a compiler cache was before them: without it the bytes are the same
sed -i.bak -E -e '/"commands":/ s/[^", ]*s?ccache, //' -e '/"commands":/ s|/[^", ]*/||g' -e "s|$SRC_DIR|SRC_DIR|g" -e "s|$BUILD_PREFIX|BUILD_PREFIX|g" \
    "$SP_DIR/numpy/__config__.py"
rm "$SP_DIR/numpy/__config__.py.bak"

# bytecode without the build prefix, which nothing replaces there; Python names the
# source anew when it loads it. Not of __config__.py: its text changes at installation.
# Python compares a hash, not a date: mamba loses the dates of files that it copies
$PYTHON -m compileall -q -f --invalidation-mode checked-hash -s "$PREFIX" -x '/numpy/__config__\.py$' "$SP_DIR/numpy"
