cimport cython

cdef Py_ssize_t _JOINED_BYTES


@cython.final
cdef class Offer:
    cdef readonly bytes frames
    cdef readonly Py_ssize_t size
    cdef readonly long long end
    cdef readonly object messages, overflow, key
    cdef readonly double at, due, max_seconds

    cpdef begin(self, double now, long long end)


@cython.final
cdef class Outbox:
    cdef readonly long long left, mark, waiting
    cdef readonly double last_progress_at, overdue_at
    cdef readonly object error
    cdef list _pieces, _ends, _offers
    cdef long long _begun, _offered
    cdef dict _latest
    cdef bytes _late_pongs

    @cython.locals(end="long long")
    cpdef put(self, bytes data, bytes payload=*, Py_ssize_t sent=*)
    @cython.locals(pieces=list, ends=list, size=Py_ssize_t, count=Py_ssize_t, following=Py_ssize_t)
    cpdef first(self)
    @cython.locals(rest=Py_ssize_t)
    cpdef sent(self, Py_ssize_t count, double now)
    @cython.locals(offer=Offer)
    cpdef offer(self, bytes frames, messages, double now, bound, key, bint behind=*)
    @cython.locals(offer=Offer)
    cpdef has_begun(self, Py_ssize_t size, messages, double now, bound)
    cpdef bint fits(self, Py_ssize_t size, double now, bound) except -1
    cpdef make_room(self, Py_ssize_t size, double now, bound, key)
    cpdef bint is_overdue(self, double now) except -1
    cpdef end(self, error)
    cdef _begin(self, Offer offer, double now)
    cdef _remember(self, Offer offer)
    @cython.locals(first=Offer)
    cdef Py_ssize_t _offered_bytes(self) except -1
    @cython.locals(offers=list, offer=Offer, count=Py_ssize_t)
    cdef _forget_what_has_left(self)
    cdef _forget_key(self, Offer offer)
    cdef _drop(self, Offer offer)
