cdef class Outbox:
    cdef readonly long long left, mark, waiting
    cdef readonly double last_progress_at
    cdef readonly object error
    cdef object _pieces
    cdef list _behind
    cdef long long _behind_bytes
    cdef readonly bytes _late_pongs
