cimport cython

from .masking cimport blank, unmask, unmask_into

cdef int _KEY_BYTES, _LENGTH_16, _LONGEST_SHORT, _LEAST_BYTES, _TEXT, _BINARY, _FIN, _MASK


@cython.final
cdef class Parser:
    cdef public Py_ssize_t max_message_size
    cdef public object max_extended_size
    cdef public bint rsv1_allowed
    cdef readonly bint gather_binary, is_text
    cdef readonly bytes buffered
    cdef Py_ssize_t _position, _remaining, _passed
    cdef bint _message_open, _in_frame, _fin, _rsv1
    cdef object _message_bytes, _limit, _opcode
    cdef bytes _key
    cdef readonly object _gathered

    cpdef feed(self, data)

    @cython.locals(
        octets="const unsigned char *", start=Py_ssize_t, stop=Py_ssize_t, opcode=int, size=Py_ssize_t,
        begin=Py_ssize_t, end=Py_ssize_t, payload=bytes,
    )
    cpdef bytes take_message(self)

    @cython.locals(available=Py_ssize_t)
    cpdef next_frame(self)

    cdef _keep_rest(self)
    cdef _drop_parsed(self, Py_ssize_t position)
    cdef _gather(self, Py_ssize_t size)
    cdef _pass_on(self, Py_ssize_t size)

    @cython.locals(payload=bytes)
    cdef _take(self, Py_ssize_t size, bint fin)
