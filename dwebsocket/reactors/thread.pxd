# The C types of thread.py, and its wait without an object of Python.

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident

from .base cimport Link, LinkLock, Served

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd *descriptors, unsigned long count, int timeout_milliseconds)

cdef int _READ, _WRITE, _READ_OR_GONE


# Returns the events of `descriptor`; 0 when the time is over, or `wakeup` can be read: then *woken is set.
cdef inline int wait_for_two(int descriptor, int mask, int wakeup, int milliseconds, bint *woken) noexcept nogil:
    cdef pollfd both[2]
    both[0].fd = wakeup
    both[0].events = 1
    both[0].revents = both[1].revents = 0
    both[1].fd = descriptor
    both[1].events = mask
    c_poll(both, 2 if mask else 1, milliseconds)
    woken[0] = both[0].revents != 0
    return both[1].revents


cdef unsigned long _this_thread() noexcept


cdef class ThreadLink(Link):
    cdef readonly int descriptor, mask
    cdef readonly bint polling, resuming
    cdef LinkLock _lock
    cdef object _reactor, _changed, _poll, _dispose
    cdef unsigned long _poller
    cdef readonly object _served, _wakeup
    cdef int _waiting
    cdef bint _closed, _is_attended, _is_queued
    cdef object _pool
    cdef int _armed

    cpdef employ(self, turn)
    cpdef bint attend(self, int events) except -1
    cpdef run_turn(self, runner)
    cpdef serve_parked(self, events)
    cdef _handle(self, int events)
    cdef _arm(self)
    cdef _let_attend(self)
    cpdef watch(self, bint read, bint write)
    cpdef sleep(self, timeout_seconds)
    cpdef wake(self)
    cpdef write_soon(self)
    cpdef resume(self)
    cpdef breathe(self, double now)
    cpdef look(self, bint pause)
    cdef _interrupt(self)
    cdef _call_back(self, int events)
    @cython.locals(descriptor=int, mask=int, wakeup=int, milliseconds=int, events=int, woken=bint)
    cdef int _wait_for_socket(self, timeout_seconds) except -1
    cdef bint _can_be_woken(self) except -1
    cdef _finish_close(self)
