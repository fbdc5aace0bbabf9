cimport cython


@cython.final
cdef class Outbox:
    cdef readonly long long left, mark, waiting
    cdef readonly double last_progress_at
    cdef readonly object error
    cdef list _pieces, _behind
    cdef long long _behind_bytes
    cdef bytes _late_pongs

    cpdef put(self, bytes data, bytes payload=*, Py_ssize_t sent=*)
    cpdef first(self)
    cpdef sent(self, Py_ssize_t count, double now)
    cpdef bint fits(self, Py_ssize_t size, Py_ssize_t limit) except -1
    cpdef end(self, error)
