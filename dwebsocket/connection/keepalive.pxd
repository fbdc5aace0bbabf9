cimport cython


@cython.final
cdef class KeepAlive:
    cdef readonly object latency
    cdef object _payload
    cdef double _ping_interval, _ping_timeout, _idle_timeout, _pinged_at, _waits_since

    cpdef beat(self, double now, double last_read_at, double last_message_at)
    cpdef double due(self, double last_read_at, double last_message_at) except? -1
    cdef double _ping_due(self, double last_read_at) except? -1
