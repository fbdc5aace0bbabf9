cimport cython

from .base cimport Link, Runner
from .clock cimport monotonic

cdef object _switch, _getcurrent
cdef double _LONGEST_GO_SECONDS


@cython.final
cdef class Runners:
    cdef object _due, _hub, _loop, _make
    cdef list _idle
    cdef bint _is_called
    cdef double _late_at

    cpdef add(self, Link link)
    @cython.locals(runner=Runner, link=Link)
    cpdef _run(self)
    cdef _rest(self, seconds)
