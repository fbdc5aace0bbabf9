cimport cython

from .base cimport Runner
from .clock cimport monotonic


@cython.final
cdef class Pool:
    cdef public int max_threads
    cdef readonly bint is_watched
    cdef object _alert, _epoll, _wakeup, _due, _lock, _reserve
    cdef dict _links, _busy
    cdef readonly int active
    cdef int _resting, _calm
    cdef bint _is_over, _has_warned, _wait
    cdef double _cpu, _watched_at

    cpdef arm(self, link)
    cpdef attend(self, link)
    cdef _wake_one(self)
    cdef _core_share(self, double now)
    cdef bint _serve(self, Runner runner) except -1
    cdef _seconds(self, Runner runner)
    cdef bint _is_stuck(self, double now, double seconds) except -1
    cdef _grow(self)
    cdef bint _rest_until_needed(self, Runner runner) except -1
    cdef _run_turn(self, link, Runner runner)
