export CXX=aarch64-conda-linux-gnu-g++
export CXXFLAGS="-isystem ${PREFIX:-$CONDA_PREFIX}/include"
