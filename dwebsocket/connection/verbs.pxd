from .connection cimport Connection


cdef class Verbs:
    cdef public object subprotocol
    cdef object _accept, _before_accept, _after_accept, _exclusively, _turnstile, _json_encoder, _refusal
    cdef readonly Connection _connection
    cdef readonly bint _end_told
    cdef bint _in_message

    cdef Connection _open(self)
    cdef Connection _open_to_send(self)
    cdef _next(self, timeout)
