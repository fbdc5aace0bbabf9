from ..connection.connection cimport Connection
from ..reactors.base cimport Runner
from ..reactors.clock cimport monotonic

cdef double _LONGEST_TURN_SECONDS


cdef class Parked:
    cdef object _context, _handlers, _ident, _run, _shared
    cdef Connection _connection
    cdef bint _is_told, _uses_wait

    cdef _hand_on(self)
    cdef _take(self)
    cdef _tell_end(self)
    cdef _fail(self, error)
