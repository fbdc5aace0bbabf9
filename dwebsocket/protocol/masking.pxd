# The C types of masking.py, and its loop over the bytes.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy


cdef inline void xor(
    unsigned char *target, const unsigned char *source, Py_ssize_t size, const unsigned char *key, Py_ssize_t offset
) noexcept nogil:
    cdef unsigned char octets[8]
    cdef uint64_t mask, word
    cdef Py_ssize_t index
    for index in range(8):
        octets[index] = key[(offset + index) & 3]
    memcpy(&mask, octets, 8)
    for index in range(0, size - 7, 8):
        memcpy(&word, source + index, 8)
        word ^= mask
        memcpy(target + index, &word, 8)
    for index in range(size & ~7, size):
        target[index] = source[index] ^ octets[index & 7]


cdef inline bytes with_mask(
    const unsigned char *source, Py_ssize_t size, const unsigned char *key, Py_ssize_t offset
):
    result = PyBytes_FromStringAndSize(NULL, size)
    xor(<unsigned char *> PyBytes_AS_STRING(result), source, size, key, offset)
    return result


cdef inline bytes unwritten(Py_ssize_t size):
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline void write_masked(
    bytes target, Py_ssize_t offset, const unsigned char *source, Py_ssize_t size, const unsigned char *key
) noexcept:
    xor(<unsigned char *> PyBytes_AS_STRING(target) + offset, source, size, key, offset)


cpdef bytes unmask(
    const unsigned char *octets, Py_ssize_t start, Py_ssize_t size,
    const unsigned char *key_octets, Py_ssize_t key_start, Py_ssize_t offset,
)
cpdef object blank(Py_ssize_t size)
cpdef object unmask_into(
    target, Py_ssize_t offset, const unsigned char *octets, Py_ssize_t start, Py_ssize_t size,
    const unsigned char *masking_key,
)
