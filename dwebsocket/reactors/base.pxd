cdef class Served:
    cpdef on_readable(self)
    cpdef on_writable(self)
    cpdef on_turn(self)
    cpdef on_fork(self)
    cpdef on_deadline(self, double now)


cdef class Link:
    cdef readonly object lock
    cdef readonly bint holds
    cdef public bint reads, writes

    cpdef watch(self, bint read, bint write)
    cpdef park(self, timeout_seconds)
    cpdef wake(self)
    cpdef resume(self)
    cpdef call_soon(self)
    cpdef breathe(self, double now)
    cpdef look(self, bint pause)
