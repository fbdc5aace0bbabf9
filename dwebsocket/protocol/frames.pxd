from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcpy

cdef int _FIN_TEXT


cdef inline bytes framed(int first, const char *payload, Py_ssize_t size):
    cdef unsigned char head[10]
    cdef Py_ssize_t head_size = 2, index
    head[0] = first
    if size < 126:
        head[1] = size
    elif size < 1 << 16:
        head[1] = 126
        head_size = 4
    else:
        head[1] = 127
        head_size = 10
    for index in range(2, head_size):
        head[index] = (size >> (8 * (head_size - 1 - index))) & 0xFF
    result = PyBytes_FromStringAndSize(NULL, head_size + size)
    memcpy(PyBytes_AS_STRING(result), head, head_size)
    memcpy(PyBytes_AS_STRING(result) + head_size, payload, size)
    return result


cdef inline bytes framed_text(int first, text):
    cdef Py_ssize_t size
    cdef const char *payload = PyUnicode_AsUTF8AndSize(text, &size)
    return framed(first, payload, size)


cpdef bytes serialize(int first, bytes payload)
cpdef bytes serialize_text(text)
