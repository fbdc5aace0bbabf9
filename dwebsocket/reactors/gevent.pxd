cimport cython

from .base cimport Link
from .runners cimport Runners

cdef object _switch, _getcurrent
cdef double _LONGEST_TURN_SECONDS


@cython.final
cdef class Turns:
    cdef readonly object hub
    cdef double _began
    cdef object _iteration, _loop
    cdef list _ready, _turn

    cdef make_ready(self, list greenlets)
    cdef rest(self)
    cpdef breathe(self, double now)
    cdef _begin(self, double now)
    cdef bint _hub_has_turned(self) except -1
    cdef remove(self, sleeper)


cdef class GeventLink(Link):
    cdef object _reactor, _readable, _writable, _resuming
    cdef int _descriptor
    cdef readonly object _served
    cdef Turns _turns
    cdef readonly list _waiters

    cpdef employ(self, turn)
    cpdef run_turn(self, runner)
    cpdef watch(self, bint read, bint write)
    cpdef sleep(self, timeout_seconds)
    cpdef wake(self)
    cpdef write_soon(self)
    cpdef resume(self)
    cpdef call_soon(self)
    cpdef breathe(self, double now)
    cpdef look(self, bint pause)
