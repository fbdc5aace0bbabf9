cdef class KeepAlive:
    cdef readonly object latency
    cdef object _payload
    cdef double _ping_interval, _ping_timeout, _idle_timeout, _pinged_at, _waits_since

    cdef double _ping_due(self, double last_read_at) except? -1
