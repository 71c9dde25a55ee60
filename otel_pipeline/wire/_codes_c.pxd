# The types that make `_codes_py.py` fast.
cimport cython

cdef int PROBES_MAX
cdef unsigned long long UINT32_MAX
cdef unsigned long long FNV_BASIS

@cython.locals(cells="long long[::1]", rows=Py_ssize_t, width=Py_ssize_t, buf="const unsigned char*", size=Py_ssize_t,
               count=Py_ssize_t, i=Py_ssize_t)
cpdef encode(bytes data, table, Py_ssize_t type_cell, long long wanted, Py_ssize_t start_cell)

@cython.locals(count=Py_ssize_t, last=Py_ssize_t, row=Py_ssize_t, base=Py_ssize_t, start="long long", end="long long",
               slot=Py_ssize_t, probes=int)
cdef Py_ssize_t _fill(const unsigned char* buf, long long[::1] cells, Py_ssize_t rows, Py_ssize_t width,
                      Py_ssize_t type_cell, long long wanted, Py_ssize_t start_cell, int[::1] codes, int[::1] slots,
                      Py_ssize_t mask, long long[::1] firsts) except -1

@cython.locals(size="long long", i="long long")
cdef bint _same(const unsigned char* buf, long long start, long long end, long long other,
                long long other_end) noexcept

@cython.locals(value="unsigned long long", i="long long")
cdef unsigned long long _hash(const unsigned char* buf, long long start, long long end) noexcept
