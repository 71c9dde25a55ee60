# The types that make `_splice_py.py` fast.
cimport cython


@cython.final
cdef class Splicer:
    cdef bytes data
    cdef const unsigned char* buf
    cdef bytes fragments
    cdef const unsigned char* frag
    cdef unsigned char* out
    cdef long long[::1] rows
    cdef long long[::1] scopes
    cdef long long[::1] groups
    cdef long long[::1] bounds
    cdef long long[::1] row_sizes
    cdef long long[::1] scope_sizes
    cdef long long[::1] group_sizes
    cdef const long long[::1] at_cells
    cdef const long long[::1] end_cells
    cdef const int[::1] codes
    cdef const unsigned char[::1] keep
    cdef const int[::1] group_codes
    cdef long long[::1] order
    cdef Py_ssize_t row_count, scope_count, group_count, width, edit_count, at, cursor

    @cython.locals(size="long long", out=bytearray)
    cpdef splice(self, at_cells, end_cells, codes, keep, group_codes)

    @cython.locals(size="long long", group=Py_ssize_t, base=Py_ssize_t, payload="long long", touched=bint,
                   rows_before="long long", rows_after="long long", scope=Py_ssize_t, line=Py_ssize_t,
                   change="long long")
    cdef Py_ssize_t _measure(self) except -1
    @cython.locals(base=Py_ssize_t, payload="long long", touched=bint, first=Py_ssize_t, last=Py_ssize_t,
                   kept="long long", row=Py_ssize_t, size="long long")
    cdef Py_ssize_t _measure_scope(self, Py_ssize_t scope) except -1
    @cython.locals(size="long long", base=Py_ssize_t, change="long long", touched=bint, edit=Py_ssize_t, code=int,
                   at="long long")
    cdef Py_ssize_t _measure_row(self, Py_ssize_t row) noexcept
    @cython.locals(change="long long")
    cdef inline Py_ssize_t _exchange(self, int code, long long at, long long end) noexcept
    cdef inline Py_ssize_t _change(self, long long size, long long at, long long end) noexcept
    @cython.locals(size="long long")
    cdef inline Py_ssize_t _varint_size(self, long long value) noexcept

    @cython.locals(group=Py_ssize_t, base=Py_ssize_t, replaced=bint, scope=Py_ssize_t)
    cdef int _write(self, long long size) except -1
    @cython.locals(base=Py_ssize_t, row=Py_ssize_t)
    cdef int _write_scope(self, Py_ssize_t scope) except -1
    @cython.locals(base=Py_ssize_t)
    cdef int _write_row(self, Py_ssize_t row) except -1
    @cython.locals(count=Py_ssize_t, edit=Py_ssize_t, slot=Py_ssize_t, code=int)
    cdef int _write_edits(self, Py_ssize_t row, Py_ssize_t base) except -1
    cdef inline Py_ssize_t _stands(self, Py_ssize_t base, Py_ssize_t edit) noexcept
    cdef inline int _replace(self, int code, long long at, long long end) except -1
    @cython.locals(out="unsigned char*", at=Py_ssize_t)
    cdef inline int _open(self, unsigned char tag, long long size, Py_ssize_t start) except -1
    cdef inline int _copy_to(self, Py_ssize_t end) except -1
    @cython.locals(start=Py_ssize_t, size=Py_ssize_t)
    cdef inline int _put(self, int code) except -1


@cython.locals(i=Py_ssize_t)
cdef void _copy(unsigned char* out, Py_ssize_t at, const unsigned char* source, Py_ssize_t start,
                Py_ssize_t size) noexcept
