# The types that make `_likeness_py.py` fast. Every operand of a shift is 64 bits wide.
cimport cython

cdef unsigned long long MASK


@cython.final
cdef class Likeness:
    cdef readonly Py_ssize_t numbers_max, count
    cdef Py_ssize_t mask
    cdef unsigned long long one, two, low, high
    cdef unsigned long long[::1] ones
    cdef unsigned long long[::1] twos
    cdef int[::1] numbers

    cpdef forget(self)
    @cython.locals(rows=Py_ssize_t, added=Py_ssize_t, asked=tuple, told=tuple)
    cpdef read(self, bytes data, table, columns, names, places, extra, Py_ssize_t fresh_max)

    @cython.locals(added=Py_ssize_t, row=Py_ssize_t, base=Py_ssize_t, word="unsigned long long", slot=Py_ssize_t)
    cdef Py_ssize_t _read(self, const unsigned char* buf, Py_ssize_t width, const long long[::1] cells,
                          const long long[::1] columns, const long long[::1] names, const long long[::1] places,
                          const long long[::1] extra, int[::1] found, long long[::1] fresh,
                          long long[::1] taken) noexcept
    @cython.locals(one="unsigned long long", two="unsigned long long", place=Py_ssize_t, cell=Py_ssize_t,
                   kind="unsigned long long", word="unsigned long long", start=Py_ssize_t, end=Py_ssize_t,
                   tail="unsigned long long")
    cdef void _condense(self, const unsigned char* buf, const long long[::1] cells, Py_ssize_t base,
                        const long long[::1] columns, const long long[::1] names, unsigned long long first,
                        unsigned long long second) noexcept
    @cython.locals(place=Py_ssize_t)
    cdef void _take_back(self, long long[::1] taken, Py_ssize_t added) noexcept
    @cython.locals(b0="unsigned long long", b1="unsigned long long", b2="unsigned long long", b3="unsigned long long",
                   b4="unsigned long long", b5="unsigned long long", b6="unsigned long long", b7="unsigned long long")
    cdef inline unsigned long long _word(self, const unsigned char* buf, Py_ssize_t at) noexcept


@cython.locals(rows=Py_ssize_t)
cpdef wholes(table, columns, units, double units_max)

@cython.locals(place=Py_ssize_t, row=Py_ssize_t, cell=Py_ssize_t, unit=double, kind="long long", value="long long",
               scaled=double)
cdef void _wholes(const long long[::1] cells, const double[::1] doubles, Py_ssize_t width,
                  const long long[::1] columns, const double[::1] units, double units_max,
                  long long[:, ::1] found) noexcept

