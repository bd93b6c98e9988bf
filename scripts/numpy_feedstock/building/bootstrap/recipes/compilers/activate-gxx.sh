if [ -S "@SCCACHE@.sock" ]; then
    export CXX="@SCCACHE@ g++"
else
    export CXX="g++"
fi
export CXXFLAGS="-isystem ${PREFIX:-$CONDA_PREFIX}/include"
