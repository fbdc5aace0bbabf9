cimport cython
from cpython.unicode cimport PyUnicode_GET_LENGTH, PyUnicode_KIND

from .batch cimport Batch
from ..reactors.clock cimport monotonic
from ..protocol.endpoint cimport Endpoint
from ..reactors.base cimport Link
from .sending cimport Sending
from .sockets cimport receive

cdef object _OPEN, _ENDING
cdef int _FRAMES_PER_TURN, _MESSAGES_PER_TURN
cdef Py_ssize_t _DECODED_BYTES_PER_TURN


cdef inline Py_ssize_t text_size(text):
    return PyUnicode_GET_LENGTH(text) * PyUnicode_KIND(text)


cdef Py_ssize_t memory_size(message) except -1


cdef class Connection(Sending):
    cdef readonly long long messages_received, bytes_received
    cdef Py_ssize_t _inbox_max_bytes, _receive_queue
    cdef bint _gathers_text
    cdef bytearray _gathered

    cpdef receive(self, timeout_seconds=*, unless=*)
    cpdef hand_on(self, received, double late_at)
    cdef bint _is_over(self) except -1
    cpdef take(self)
    cpdef _take_next(self)
    cpdef on_readable(self)
    cpdef on_fork(self)
    cpdef _receive_next(self, timeout_seconds, unless=*)
    cdef _come_back(self)
    cdef bint _gather(self, data) except -1
    cdef _take_gathered(self)
    cdef _wait_for_message(self, timeout_seconds)
    @cython.locals(now=double)
    cdef _wait_unless(self, timeout_seconds, unless)
    @cython.locals(endpoint=Endpoint, frames_left=int)
    cdef _parse(self)
    cdef _receive_pong(self, pong)
    @cython.locals(link=Link)
    cdef _take(self)
    cdef bint _wants_to_read(self) except -1
