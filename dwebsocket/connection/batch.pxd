cimport cython

cdef double _QUICK_SECONDS
cdef Py_ssize_t _HELD_BYTES


@cython.final
cdef class Batch:
    cdef readonly Py_ssize_t size
    cdef list _held
    cdef double _held_since, _last_take_at
    cdef bint _is_quick

    cpdef took(self, double now)
    cpdef bint may_hold(self, double now) except -1
    cpdef bint hold(self, bytes data, double now) except -1
    cpdef bytes release(self, bytes data)
    cpdef drop(self)
