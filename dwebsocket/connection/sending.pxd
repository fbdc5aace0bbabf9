cimport cython

from .batch cimport Batch
from ..reactors.clock cimport monotonic
from .lifetime cimport Lifetime
from .outbox cimport Outbox
from .sockets cimport send, send_both

cdef object _OPEN, _ENDING, _CLOSED
cdef Py_ssize_t _LARGE_BYTES


cdef class Sending(Lifetime):
    cdef readonly long long messages_sent
    cdef long long _written
    cdef int _descriptor
    cdef bint _compresses, _sending_parts
    cdef object _sender
    cdef readonly Batch _batch

    cpdef send(self, message)
    cpdef offer(self, bytes frames, messages=*, bound=*, key=*)
    cpdef on_writable(self)
    cpdef on_turn(self)
    @cython.locals(data=bytes, now=double, batch=Batch)
    cpdef _send_message(self, message)
    @cython.locals(now=double, outbox=Outbox)
    cpdef _offer(self, bytes frames, messages, bound, key)
    cdef _queue(self, Outbox outbox, bytes frames, messages, bound, key, double now)
    cdef _refuse_offer(self, messages, bound)
    @cython.locals(mark="long long")
    cdef _send_large(self, message)
    @cython.locals(data=bytes, payload=bytes)
    cdef _write_large(self, encoded)
    cdef Py_ssize_t _mark(self) except -1
    cdef _take_turn(self)
    cdef _end_turn(self)
    cdef _wait_for_turn(self)
    cdef bint _may_send(self) except -1
    cdef _send_batch(self)
    cdef _send(self, bytes data, bytes payload=*)
    @cython.locals(size=Py_ssize_t, sent=Py_ssize_t)
    cdef _write(self, bytes data, bytes payload=*)
    cdef _write_behind(self, Outbox outbox, bytes data, bytes payload)
    @cython.locals(outbox=Outbox, sent=Py_ssize_t)
    cdef _flush(self)
    cdef _lose_peer(self)
    cdef _wait_until_written(self, Outbox outbox, long long mark)
    cdef _answer_pings(self, bytes pongs)
