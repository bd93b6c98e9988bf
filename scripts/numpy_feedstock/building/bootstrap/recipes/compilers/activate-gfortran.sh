if [ "$(gfortran -dumpversion 2> /dev/null | cut -d . -f 1)" = @MAJOR@ ]; then
    export FC=gfortran
fi
