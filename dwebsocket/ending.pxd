cdef class Ending:
    cdef readonly object phase
    cdef readonly double since
    cdef double _close_timeout
