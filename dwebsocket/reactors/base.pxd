from cpython.pythread cimport PyThread_get_thread_ident

from .clock cimport monotonic


cdef class Served:
    cpdef on_readable(self)
    cpdef on_writable(self)
    cpdef on_turn(self)
    cpdef on_fork(self)
    cpdef on_deadline(self, double now)


cdef class LinkLock:
    cdef object _mutex, _gate
    cdef unsigned long _owner
    cdef list _posted

    cpdef acquire(self)
    cpdef release(self)
    cpdef give_way(self)
    cpdef post(self, function)
    cdef bint _try(self) except -1
    cdef _wait(self)
    cdef _make_gate(self)
    cdef _run_posted(self)
    cdef void _own(self) noexcept
    cpdef bint _is_owned(self) noexcept


cdef class Runner:
    cdef readonly object caller, ident
    cdef public object keeper

    cpdef rest(self)
    cpdef close(self)


cdef class Link:
    cdef readonly LinkLock lock
    cdef readonly bint holds
    cdef public bint reads, writes
    cdef public bint runs, is_due
    cdef public object turn

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
