cimport cython
from cpython.pythread cimport PyThread_get_thread_ident

from ..reactors.clock cimport monotonic
from .ending cimport Ending, Facts
from .keepalive cimport KeepAlive
from .outbox cimport Outbox
from ..protocol.endpoint cimport Endpoint
from ..reactors.base cimport Link, LinkLock, Served

cdef object _OPEN, _OVER


cdef class Lifetime(Served):
    cdef readonly Endpoint endpoint
    cdef readonly object limits, reactor
    cdef readonly LinkLock lock
    cdef public object wait_hook
    cdef readonly double last_read_at, last_message_at
    cdef unsigned long _owner_thread
    cdef readonly Link _link
    cdef readonly list _inbox
    cdef Py_ssize_t _inbox_bytes
    cdef long _answers_owed
    cdef readonly bint _read_ended
    cdef readonly Outbox _outbox
    cdef readonly Ending _ending
    cdef KeepAlive _keep_alive
    cdef object _socket, _dispose

    cpdef bint is_foreign_thread(self) except -1
    cpdef call_on_reactor(self, function, tuple arguments, undo=*)
    cdef _enter(self)
    cdef _leave(self)
    cpdef on_deadline(self, double now)
    cdef _break_off(self)
    cdef bint _wants_to_read(self) except -1
    cdef _write(self, bytes data, bytes payload=*)
    cdef _flush(self)
    cdef bint _sleep(self, deadline) except -1
    cdef _call_unlocked(self, function)
    @cython.locals(is_open=bint, reads=bint, writes=bint, link=Link)
    cdef _settle(self)
    @cython.locals(now=double)
    cdef bint _move_to_the_end(self) except -1
    @cython.locals(endpoint=Endpoint, outbox=Outbox, facts=Facts)
    cdef Facts _facts(self)
    cdef bint _is_writing(self) except -1
    cdef _end(self, close_frame)
    cdef _abort(self, reason, error=*)
    cdef _give_up(self, reason, error)
    cdef _stop_writing(self, error)
    cdef _schedule(self)
    cdef _earliest(self)
    cdef _notice_hangup_while_paused(self, double now)
    @cython.locals(outbox=Outbox)
    cdef double _stalled_at(self) except? -1
    @cython.locals(outbox=Outbox)
    cdef double _overdue_at(self) except? -1
    cdef _judge_what_was_offered(self, double now)
    cdef _close_as_too_slow(self)
    cdef bint _act(self, double now) except -1
    cdef _give_up_sending(self)
