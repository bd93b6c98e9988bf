if command -v gfortran > /dev/null; then
    export FC=gfortran
fi
