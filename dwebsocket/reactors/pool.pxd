cimport cython

from .base cimport Runner
from .clock cimport monotonic


@cython.final
cdef class Pool:
    cdef public int max_threads
    cdef object _epoll, _wakeup, _due, _lock
    cdef dict _links, _busy
    cdef int _count
    cdef bint _is_over, _has_warned

    cpdef arm(self, link)
    cpdef attend(self, link)
    cdef _wake_one(self)
    cdef _serve(self, Runner runner)
    cdef _seconds(self, Runner runner)
    cdef _run_turn(self, link, Runner runner)
