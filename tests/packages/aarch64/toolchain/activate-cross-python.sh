# As conda-forge's cross-python: $PREFIX/bin/python becomes the build machine's Python that
# answers as the host's does. It runs once, when a package is built.
if [ "${CONDA_BUILD:-}" = 1 ] && [ ! -d "$BUILD_PREFIX/venv" ] && [ -d "$PREFIX/lib/python@MINOR@" ]; then
    "$BUILD_PREFIX/bin/python@MINOR@" -m crossenv "$PREFIX/bin/python@MINOR@" "$BUILD_PREFIX/venv" --without-pip \
        --sysroot "$CONDA_BUILD_SYSROOT" --cc "$CC" --cxx "$CXX" --ar "$AR" \
        --sysconfigdata-file "$PREFIX/lib/python@MINOR@/_sysconfigdata__aarch64-linux-gnu.py"
    # libraries for the host cannot be loaded: what runs here has those of the build environment
    site="lib/python@MINOR@/site-packages"
    (cd "$PREFIX/$site" && tar -c --exclude="*.so" .) | tar -x -C "$BUILD_PREFIX/$site"
    export PYTHONPATH="$BUILD_PREFIX/$site"
    # pip installs into the prefix of this one, and not into crossenv's
    rm "$PREFIX/bin/python"
    cp "$BUILD_PREFIX/venv/cross/bin/python" "$PREFIX/bin/python"
    sed -i "s,^executable = .*,executable = '$PREFIX/bin/python'," "$BUILD_PREFIX/venv/lib/sys-patch.py"
    # scripts of the build environment ask for this one
    rm "$BUILD_PREFIX/bin/python"
    printf '#!/bin/sh\nexec "%s/bin/python" "$@"\n' "$PREFIX" > "$BUILD_PREFIX/bin/python"
    chmod +x "$BUILD_PREFIX/bin/python"
fi
export PYTHON="$PREFIX/bin/python"
