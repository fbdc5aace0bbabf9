cimport cython

cdef object _HUNG_UP, _DRAINING, _CLOSING, _GOING_AWAY, _SILENCE, _LINGERING, _OVER
cdef object _IS_OPEN, _IS_ENDING, _IS_CLOSED


@cython.final
cdef class Facts:
    cdef readonly object state
    cdef readonly bint is_owed, is_paused, is_writing, write_ended, read_ended, close_received
    cdef readonly double last_read_at, last_progress_at


@cython.final
cdef class Ending:
    cdef readonly object phase
    cdef readonly double since
    cdef double _close_timeout

    cpdef move(self, double now, Facts facts)
    cpdef expire(self, double now, Facts facts)
    cpdef taken(self, double now)
    cpdef double due(self, Facts facts) except? -1
    cdef _phase_of(self, Facts facts)
    cdef double _silent_at(self, Facts facts) except? -1
    cdef double _timed_out_at(self, Facts facts) except? -1
