cimport cython

cpdef str decode(bytes payload)


@cython.final
cdef class Assembler:
    cdef readonly object _parts, _decoder
    cdef bint _text


@cython.final
cdef class Cutter:
    cdef object _decoder
    cdef bint _in_message
