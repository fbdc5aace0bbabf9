cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.unicode cimport PyUnicode_GET_LENGTH, PyUnicode_KIND

from .clock cimport monotonic
from .protocol.endpoint cimport Endpoint
from .reactors.base cimport Link, LinkLock, Served
from .sockets cimport receive, send, send_both

cdef object _OPEN, _ENDING, _CLOSED
cdef int _FRAMES_PER_TURN
cdef Py_ssize_t _DECODED_BYTES_PER_TURN, _LARGE_BYTES, _HELD_BYTES
cdef double _QUICK_SECONDS


cdef inline Py_ssize_t text_size(text):
    return PyUnicode_GET_LENGTH(text) * PyUnicode_KIND(text)


cdef Py_ssize_t memory_size(message) except -1


cdef class Connection(Served):
    cdef readonly Endpoint endpoint
    cdef readonly object limits, latency, reactor
    cdef readonly LinkLock lock
    cdef readonly bint streaming
    cdef public object keeper
    cdef readonly long long messages_received, messages_sent, bytes_received
    cdef object _socket, _dispose, _thread_ident
    cdef unsigned long _home
    cdef int _descriptor
    cdef readonly Link _link
    cdef readonly list _inbox, _outbox
    cdef list _held
    cdef bytearray _gathered
    cdef Py_ssize_t _inbox_bytes, _inbox_max_bytes, _receive_queue, _held_bytes
    cdef readonly Py_ssize_t _outbox_bytes
    cdef readonly bytes _late_pongs
    cdef long long _written
    cdef object _ping, _ending, _hung_up, _sender
    cdef bint _compresses, _sends_both, _sending_parts, _unparsed, _taken, _reads, _writes
    cdef readonly bint _read_ended
    cdef bint _write_ended, _disposed, _released, _timed_out, _in_a_hurry
    cdef bint _quick, _gathers_text
    cdef double _held_since, _took, _heard, _active, _moved, _pinged

    cpdef receive(self, timeout_seconds=*)
    cpdef send(self, message)
    cpdef bint is_elsewhere(self) except -1
    cpdef on_readable(self)
    cpdef on_writable(self)
    cpdef on_turn(self)
    cpdef on_fork(self)
    cpdef on_deadline(self, double now)
    cdef _break_off(self)
    cdef _receive_next(self, timeout_seconds)
    cdef bint _gather(self, data) except -1
    cdef _take_gathered(self)
    cdef _wait_for_message(self, timeout_seconds)
    cdef bint _park(self, deadline) except -1
    cdef _let_others_in(self, function)
    @cython.locals(endpoint=Endpoint, frames_left=int)
    cdef _parse(self)
    cdef _answer_pings(self, bytes pongs)
    cdef _receive_pong(self, pong)
    @cython.locals(now=double)
    cdef _take(self)
    cdef bint _wants_to_read(self) except -1
    @cython.locals(data=bytes, now=double)
    cdef _send_message(self, message)
    cdef _wait_for_turn(self)
    cdef bint _may_be_held(self, double now) except -1
    cdef _hold(self, bytes data, double now)
    cdef _let_go(self)
    @cython.locals(mark="long long")
    cdef _send(self, bytes data, bytes payload=*)
    @cython.locals(size=Py_ssize_t, sent=Py_ssize_t, mark="long long")
    cdef long long _write(self, bytes data, bytes payload=*) except -1
    @cython.locals(is_open=bint, reads=bint, writes=bint)
    cdef _settle(self)
