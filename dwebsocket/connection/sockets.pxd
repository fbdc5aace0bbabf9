# The C types of sockets.py, and its system calls.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy, memset

cdef extern from "<sys/types.h>" nogil:
    ctypedef Py_ssize_t ssize_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t c_recv "recv"(int descriptor, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int descriptor, const void *buffer, size_t size, int flags)
    ssize_t c_sendmsg "sendmsg"(int descriptor, const msghdr *message, int flags)

cdef extern from *:
    """
    #ifdef MSG_NOSIGNAL
    #define DW_SEND_FLAGS MSG_NOSIGNAL
    #else
    #define DW_SEND_FLAGS 0  /* Python ignores SIGPIPE */
    #endif
    #define DW_FIRST_BYTES (16 * 1024)
    #define DW_MORE_BYTES (256 * 1024)
    """
    const int DW_SEND_FLAGS
    const int DW_FIRST_BYTES
    const int DW_MORE_BYTES

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *content, Py_ssize_t size) except NULL
    int resize_bytes "_PyBytes_Resize"(PyObject **content, Py_ssize_t size) except -1


cdef inline bint is_retried() noexcept nogil:
    return errno == EAGAIN or errno == EINTR  # EWOULDBLOCK is EAGAIN wherever Python runs


# Most arrivals are small, and get no more memory than they have bytes. One that fills the small buffer begins something
# larger; the rest of that is read straight into the memory where it stays.
cdef inline bytes read_descriptor(int descriptor):
    cdef char first[16384]
    cdef PyObject *content
    cdef ssize_t more
    cdef ssize_t size = c_recv(descriptor, first, DW_FIRST_BYTES, 0)
    if size < 0:
        return None if is_retried() else b""
    if size < DW_FIRST_BYTES:
        return first[:size]
    content = new_bytes(NULL, DW_FIRST_BYTES + DW_MORE_BYTES)
    memcpy(PyBytes_AS_STRING(<object> content), first, DW_FIRST_BYTES)
    more = c_recv(descriptor, PyBytes_AS_STRING(<object> content) + DW_FIRST_BYTES, DW_MORE_BYTES, 0)
    resize_bytes(&content, DW_FIRST_BYTES + (more if more > 0 else 0))  # an end, or an error, is told again
    result = <bytes> content
    Py_DECREF(result)
    return result


cdef inline ssize_t write_descriptor(int descriptor, bytes data) noexcept:
    cdef ssize_t sent = c_send(descriptor, PyBytes_AS_STRING(data), len(data), DW_SEND_FLAGS)
    if sent < 0:
        return 0 if is_retried() else -1
    return sent


cdef inline ssize_t write_both(int descriptor, bytes header, bytes payload) noexcept:
    cdef iovec parts[2]
    cdef msghdr message
    cdef ssize_t sent
    memset(&message, 0, sizeof(message))
    parts[0].iov_base = PyBytes_AS_STRING(header)
    parts[0].iov_len = len(header)
    parts[1].iov_base = PyBytes_AS_STRING(payload)
    parts[1].iov_len = len(payload)
    message.msg_iov = parts
    message.msg_iovlen = 2
    sent = c_sendmsg(descriptor, &message, DW_SEND_FLAGS)
    if sent < 0:
        return 0 if is_retried() else -1
    return sent


cpdef bytes receive(sock, int descriptor)
cpdef Py_ssize_t send(sock, int descriptor, data) except -2
cpdef Py_ssize_t send_both(sock, int descriptor, bytes header, bytes payload) except -2
