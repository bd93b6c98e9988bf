export CXX="g++"
export CXXFLAGS="-isystem ${PREFIX:-$CONDA_PREFIX}/include"
