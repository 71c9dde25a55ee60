# The types that make `_lineage_py.py` fast.
cimport cython

cdef unsigned long long MASK
cdef unsigned long long SPREAD
cdef long long SUM_MAX
cdef unsigned long long TIME_MAX
cdef long long WHOLE_MAX
cdef long long NOTHING
cdef long long MIXED
cdef Py_ssize_t PROBES_MAX


@cython.final
cdef class Lineage:
    cdef Py_ssize_t slots, depth_max, young, count, count_before, rows_max, rows, width, index_mask
    cdef unsigned long long[::1] ids
    cdef long long[::1] models
    cdef long long[::1] firsts
    cdef long long[::1] lasts
    cdef long long[::1] used
    cdef long long[::1] sums
    cdef long long[::1] currencies
    cdef object index_kept
    cdef int[::1] index
    cdef int[::1] parents
    cdef long long[::1] waiting
    cdef long long[::1] row_firsts
    cdef long long[::1] row_lasts
    cdef const long long[::1] cells
    cdef object starts_kept, ends_kept
    cdef long long[::1] starts
    cdef long long[::1] ends
    cdef bint awaits

    cpdef _resize(self, Py_ssize_t rows)
    @cython.locals(rows=Py_ssize_t, size=Py_ssize_t)
    cpdef read(self, table)
    @cython.locals(row=Py_ssize_t, slot=Py_ssize_t, base=Py_ssize_t, trace="unsigned long long",
                   parent="unsigned long long", above=int)
    cdef _link(self, const long long[::1] cells, Py_ssize_t width)
    cdef inline long long _time(self, unsigned long long time_ns) noexcept
    cpdef mattering(self, flags, long long mask, keep)
    @cython.locals(row=Py_ssize_t)
    cdef void _mattering(self, const long long[::1] flags, long long mask, const unsigned char[::1] keep,
                         unsigned char[::1] found) noexcept
    @cython.locals(_step=Py_ssize_t)
    cdef void _above(self, Py_ssize_t row, const unsigned char[::1] keep, unsigned char[::1] found) noexcept
    @cython.locals(home="unsigned long long", probe=Py_ssize_t, slot=Py_ssize_t, row=Py_ssize_t, base=Py_ssize_t)
    cdef Py_ssize_t _place(self, unsigned long long trace, unsigned long long span) noexcept
    @cython.locals(mixed="unsigned long long")
    cdef inline unsigned long long _spread(self, unsigned long long trace, unsigned long long span) noexcept
    @cython.locals(key="unsigned long long")
    cdef inline unsigned long long _key(self, unsigned long long trace, unsigned long long span) noexcept

    @cython.locals(slot=Py_ssize_t)
    cdef void _turn(self) noexcept
    @cython.locals(home="unsigned long long", turn=int, start=Py_ssize_t, probe=Py_ssize_t, slot=Py_ssize_t)
    cdef Py_ssize_t _find(self, unsigned long long key) noexcept
    @cython.locals(base=Py_ssize_t, parent="unsigned long long", key="unsigned long long", slot=Py_ssize_t,
                   home="unsigned long long", probe=Py_ssize_t)
    cdef Py_ssize_t _keep(self, Py_ssize_t row) noexcept
    cdef inline void _clear(self, Py_ssize_t slot) noexcept

    cpdef outer(self, called, telling, models)
    @cython.locals(row=Py_ssize_t, slot=Py_ssize_t)
    cdef _outer(self, const unsigned char[::1] called, const unsigned char[::1] telling,
                const long long[::1] models, unsigned char[::1] found)
    @cython.locals(_step=Py_ssize_t, above=Py_ssize_t, slot=Py_ssize_t)
    cdef void _tell(self, Py_ssize_t row, long long model, const unsigned char[::1] called,
                    const long long[::1] models, unsigned char[::1] found) noexcept

    cpdef own(self, order, gpus, sizes)
    @cython.locals(row=Py_ssize_t)
    cdef void _whole(self, long long[::1] gpus, const long long[::1] sizes, long long[::1] whole) noexcept
    @cython.locals(row=Py_ssize_t, slot=Py_ssize_t, place=Py_ssize_t)
    cdef _below(self, const long long[::1] order, const long long[::1] gpus, const long long[::1] sizes,
                long long[::1] found)
    @cython.locals(_step=Py_ssize_t, above=Py_ssize_t, kept=Py_ssize_t, both="long long",
                   more="long long")
    cdef void _hand_on(self, Py_ssize_t row, Py_ssize_t slot) noexcept
    @cython.locals(_step=Py_ssize_t, above=Py_ssize_t, slot=Py_ssize_t, start="long long", end="long long",
                   own="long long", size="long long", first="long long", last="long long", fresh="long long",
                   whole="long long")
    cdef void _cover(self, Py_ssize_t row, const long long[::1] gpus, const long long[::1] sizes,
                     long long[::1] found) noexcept
    @cython.locals(fresh="long long")
    cdef long long _fresh(self, Py_ssize_t row, long long first, long long last) noexcept
    cdef void _extend(self, Py_ssize_t slot, long long start, long long end) noexcept

    cpdef totals(self, nano, currencies)
    @cython.locals(row=Py_ssize_t, slot=Py_ssize_t)
    cdef _totals(self, const long long[::1] nano, const long long[::1] currencies, long long[::1] sums,
                 long long[::1] found)
    @cython.locals(_step=Py_ssize_t, above=Py_ssize_t, slot=Py_ssize_t)
    cdef void _add(self, Py_ssize_t row, long long nano, long long currency, long long[::1] sums,
                   long long[::1] found) noexcept
