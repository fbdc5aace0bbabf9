cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.unicode cimport PyUnicode_GET_LENGTH, PyUnicode_KIND

from .batch cimport Batch
from .clock cimport monotonic
from .lifetime cimport Lifetime
from .outbox cimport Outbox
from .protocol.endpoint cimport Endpoint
from .reactors.base cimport Link
from .sockets cimport receive, send, send_both

cdef object _OPEN, _ENDING, _CLOSED
cdef int _FRAMES_PER_TURN
cdef Py_ssize_t _DECODED_BYTES_PER_TURN, _LARGE_BYTES


cdef inline Py_ssize_t text_size(text):
    return PyUnicode_GET_LENGTH(text) * PyUnicode_KIND(text)


cdef Py_ssize_t memory_size(message) except -1


cdef class Connection(Lifetime):
    cdef readonly object reactor
    cdef readonly long long messages_received, messages_sent, bytes_received
    cdef long long _written
    cdef unsigned long _home
    cdef int _descriptor
    cdef Py_ssize_t _inbox_max_bytes, _receive_queue
    cdef bint _sending_parts
    cdef Batch _batch
    cdef object _sender
    cdef bint _compresses, _gathers_text
    cdef bytearray _gathered

    cpdef receive(self, timeout_seconds=*)
    cpdef send(self, message)
    cpdef offer(self, bytes frames, messages=*, max_waiting_bytes=*)
    cpdef bint is_elsewhere(self) except -1
    cpdef on_readable(self)
    cpdef on_writable(self)
    cpdef on_turn(self)
    cpdef on_fork(self)
    cpdef _receive_next(self, timeout_seconds)
    cdef bint _gather(self, data) except -1
    cdef _take_gathered(self)
    cdef _wait_for_message(self, timeout_seconds)
    @cython.locals(endpoint=Endpoint, frames_left=int)
    cdef _parse(self)
    cdef _answer_pings(self, bytes pongs)
    cdef _receive_pong(self, pong)
    @cython.locals(link=Link)
    cdef _take(self)
    cdef bint _wants_to_read(self) except -1
    @cython.locals(data=bytes, now=double, batch=Batch)
    cpdef _send_message(self, message)
    @cython.locals(now=double, outbox=Outbox)
    cpdef _offer(self, bytes frames, messages, max_waiting_bytes)
    cdef _wait_for_turn(self)
    cdef bint _may_send(self) except -1
    cdef _let_go(self)
    cdef _send(self, bytes data, bytes payload=*)
    @cython.locals(size=Py_ssize_t, sent=Py_ssize_t)
    cdef _write(self, bytes data, bytes payload=*)
    cdef _write_behind(self, Outbox outbox, bytes data, bytes payload)
    @cython.locals(outbox=Outbox, sent=Py_ssize_t)
    cdef _flush(self)
    cdef _lose_peer(self)
    @cython.locals(mark="long long")
    cdef _wait_until_written(self, Outbox outbox)
