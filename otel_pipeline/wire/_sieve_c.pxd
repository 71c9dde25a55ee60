# The types that make `_sieve_py.py` fast. Every operand of a shift is 64 bits wide; every offset is a Py_ssize_t.
cimport cython

cdef Py_ssize_t NESTING_MAX
cdef Py_ssize_t SIEVE_BYTES_KEPT
cdef Py_ssize_t SIEVE_NEW_KEYS_MAX
cdef Py_ssize_t SIEVE_NEW_UNITS_MAX
cdef unsigned long long MASK
cdef unsigned long long TAG_MAX
cdef int TEXT
cdef int PAIR
cdef int VALUE
cdef int KEY
cdef Py_ssize_t WIDTH
cdef Py_ssize_t PLACES
cdef Py_ssize_t NOVELTIES
cdef Py_ssize_t REMEMBERED_MAX


@cython.final
cdef class Known:
    cdef readonly Py_ssize_t slot_bytes
    cdef Py_ssize_t mask
    cdef unsigned long long factor
    cdef const short[::1] weights
    cdef unsigned long long[::1] hashes
    cdef long long[::1] sizes
    cdef unsigned long long[::1] seen
    cdef bytearray store_kept
    cdef unsigned char* store
    cdef unsigned long long code

    @cython.locals(size=Py_ssize_t, code="unsigned long long", slot=Py_ssize_t)
    cdef inline bint find(self, const unsigned char* buf, Py_ssize_t start, Py_ssize_t end, int kind) noexcept
    @cython.locals(slot=Py_ssize_t)
    cdef bint is_second(self, unsigned long long code) noexcept
    @cython.locals(slot=Py_ssize_t, size=Py_ssize_t, base=Py_ssize_t, i=Py_ssize_t)
    cdef void add(self, const unsigned char* buf, Py_ssize_t start, Py_ssize_t end, int kind,
                  unsigned long long code) noexcept
    @cython.locals(base=Py_ssize_t, target=Py_ssize_t, i=Py_ssize_t)
    cdef void _copy(self, Py_ssize_t slot, Py_ssize_t other) noexcept
    @cython.locals(size=Py_ssize_t, value=int, code="unsigned long long", i=Py_ssize_t)
    cdef unsigned long long _hash(self, const unsigned char* buf, Py_ssize_t start, Py_ssize_t end,
                                  int kind) noexcept


@cython.final
cdef class Sieve:
    cdef bytes layout_kept, in_run_kept, data
    cdef const unsigned char* layout
    cdef const unsigned char* in_run
    cdef const unsigned char* buf
    cdef bytearray texts_kept, runs_kept
    cdef unsigned char* texts
    cdef unsigned char* runs
    cdef long long[::1] units
    cdef unsigned long long[::1] codes
    cdef long long[::1] new
    cdef long long[::1] again
    cdef long long[::1] before
    cdef long long[::1] novelties
    cdef object units_kept, codes_kept, new_kept, again_kept
    cdef Known known
    cdef Known keys
    cdef Py_ssize_t width, value_bytes_max, run_bytes_min, texts_room, runs_room, text_size, run_size, body
    cdef readonly Py_ssize_t unit_count, new_count, flag_count, again_count
    cdef unsigned long long tag, number, turn

    cdef _allocate(self)
    cdef _reset(self, bytes data)
    @cython.locals(i=Py_ssize_t)
    cpdef bint sift(self, bytes data, Py_ssize_t message) except -1
    cpdef new_texts(self)
    cpdef new_runs(self)
    @cython.locals(i=Py_ssize_t)
    cpdef new_keys(self)
    cpdef learn(self, Py_ssize_t start, Py_ssize_t end)
    cpdef int flag(self, Py_ssize_t unit) except -1
    cpdef flag_text(self, Py_ssize_t place)
    cpdef flag_run(self, Py_ssize_t place)
    @cython.locals(unit=Py_ssize_t)
    cpdef acquit(self, Py_ssize_t start)
    @cython.locals(i=Py_ssize_t)
    cpdef flagged(self)
    @cython.locals(unit=Py_ssize_t, base=Py_ssize_t, code="unsigned long long", part="unsigned long long",
                   start=Py_ssize_t, end=Py_ssize_t)
    cpdef remember(self)
    @cython.locals(start=Py_ssize_t)
    cpdef around(self, Py_ssize_t pos, Py_ssize_t end, Py_ssize_t place)

    @cython.locals(buf="const unsigned char*", tag="unsigned long long", size=Py_ssize_t, body=Py_ssize_t, part=int,
                   place=Py_ssize_t)
    cdef bint _message(self, Py_ssize_t pos, Py_ssize_t end, Py_ssize_t message) except -1
    @cython.locals(size=Py_ssize_t, count=Py_ssize_t, fine=bint, as_before=bint)
    cdef inline bint _unit(self, Py_ssize_t pos, Py_ssize_t end, int kind, Py_ssize_t place) except -1
    cdef int _again(self, Py_ssize_t start, Py_ssize_t unit) except -1
    @cython.locals(unit=Py_ssize_t, base=Py_ssize_t, before=Py_ssize_t, fine=bint)
    cdef bint _new_unit(self, Py_ssize_t pos, Py_ssize_t end, int kind) except -1
    cdef bint _pair(self, Py_ssize_t pos, Py_ssize_t end, Py_ssize_t depth) except -1
    cdef int _new_key(self, Py_ssize_t pos, Py_ssize_t end) except -1
    cdef bint _value(self, Py_ssize_t pos, Py_ssize_t end, Py_ssize_t depth) except -1
    @cython.locals(fine=bint)
    cdef bint _values(self, Py_ssize_t pos, Py_ssize_t end, bint pairs, Py_ssize_t depth) except -1
    @cython.locals(size=Py_ssize_t)
    cdef int _text(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(buf="const unsigned char*", in_run="const unsigned char*", least=Py_ssize_t, pos=Py_ssize_t,
                   first=Py_ssize_t, start=Py_ssize_t)
    cdef int _runs(self, Py_ssize_t low, Py_ssize_t end) except -1
    @cython.locals(size=Py_ssize_t)
    cdef int _run(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(grown=bytearray)
    cdef bytearray _grown(self, bytearray kept, Py_ssize_t used, Py_ssize_t more)
    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t)
    cdef Py_ssize_t _unit_at(self, Py_ssize_t place, Py_ssize_t cell) noexcept

    @cython.locals(buf="const unsigned char*", tag="unsigned long long", wire=int, size=Py_ssize_t)
    cdef Py_ssize_t _field(self, Py_ssize_t pos, Py_ssize_t end) noexcept
    @cython.locals(value="unsigned long long", byte="unsigned long long", shift=int)
    cdef Py_ssize_t _varint(self, Py_ssize_t pos, Py_ssize_t end) noexcept


@cython.locals(i=Py_ssize_t)
cdef void _copy(unsigned char* target, Py_ssize_t at, const unsigned char* buf, Py_ssize_t start,
                Py_ssize_t size) noexcept

@cython.locals(bits="unsigned char", i=Py_ssize_t)
cdef bint _same(const unsigned char* buf, Py_ssize_t start, const unsigned char* other, Py_ssize_t at,
                Py_ssize_t size) noexcept
