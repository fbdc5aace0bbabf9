cimport cython

from .frames cimport serialize, serialize_text
from .messages cimport decode
from .parser cimport Parser

cdef object _OPEN, _ENDING, _CLOSING
cdef int _FIN_BINARY


@cython.final
cdef class Endpoint:
    cdef readonly object state, close_code, close_reason
    cdef readonly bint close_received
    cdef public Py_ssize_t decoded_bytes
    cdef public double empty_frames
    cdef double _judged_at
    cdef readonly bytes output
    cdef bint _takes_whole
    cdef object _extensions
    cdef readonly object _assembler
    cdef readonly Parser parser
    cdef bytes _answer

    cpdef feed(self, data)

    @cython.locals(payload=bytes)
    cpdef advance(self)

    cdef _advance_frame(self)
    @cython.locals(forgiven=double)
    cpdef limit_empty_frames(self, double now)
    cpdef bytes data_to_send(self)
    cpdef bytes send_message(self, message)
    cpdef refuse_if_late(self)
    cdef bint _listens(self)
