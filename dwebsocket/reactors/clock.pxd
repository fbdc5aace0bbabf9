cimport cython

cdef extern from *:
    """
    #include <time.h>
    static double dw_read_clock(void) {
    #ifdef __linux__  /* elsewhere Python has another one */
        struct timespec now;
        if (clock_gettime(CLOCK_MONOTONIC, &now) == 0)
            return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    #endif
        return -1;
    }
    """
    double read_clock "dw_read_clock"() noexcept nogil

@cython.locals(now=double)
cpdef double monotonic() except -1
