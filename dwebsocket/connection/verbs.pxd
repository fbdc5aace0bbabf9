from .connection cimport Connection


cdef class Verbs:
    cdef readonly object _opening
    cdef object _json_encoder
    cdef readonly Connection _connection
    cdef set _told
    cdef bint _in_message

    cdef Connection _find(self)
    cdef Connection _open(self)
    cdef Connection _open_to_send(self)
    cdef _next(self, timeout, unless=*)
