// An extension module that imports numpy from a static constructor: inside
// dlopen(), with the loader's lock held, before PyInit_static_import() runs.
// Bindings of several C++ projects do this by way of a global object.
#include <Python.h>

#include <cstdlib>

struct NumpyImport {
    NumpyImport() {
        PyObject *numpy = PyImport_ImportModule("numpy");
        if (numpy == nullptr) {
            // A constructor run by the loader has nobody to raise to. _Exit,
            // because exit() would run destructors of a half-opened library.
            PyErr_Print();
            std::_Exit(EXIT_FAILURE);
        }
        Py_DECREF(numpy);
    }
};

static NumpyImport numpy_import;

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "static_import", nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr,
};

PyMODINIT_FUNC PyInit_static_import() {
    return PyModule_Create(&definition);
}
