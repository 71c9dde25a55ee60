# The types that make `_scan_py.py` fast. Every operand of a shift is 64 bits wide; every offset is a Py_ssize_t.
cimport cython

cdef Py_ssize_t NESTING_MAX
cdef Py_ssize_t REQUEST_BYTES_MAX
cdef Py_ssize_t ROWS_KEPT
cdef Py_ssize_t ROWS_MAX
cdef unsigned long long UINT32_MAX


@cython.final
cdef class Scanner:
    cdef public bytes data
    cdef const unsigned char* buf
    cdef bytes keys_kept
    cdef const unsigned char* keys
    cdef const unsigned char[::1] kinds
    cdef object seen_kept
    cdef unsigned char[::1] seen
    cdef object places_kept
    cdef long long[::1] places
    cdef Py_ssize_t place_count
    cdef const unsigned char[::1] slots
    cdef long long[::1] key_starts
    cdef long long[::1] first_of_size
    cdef long long[::1] next_of_size
    cdef long long[::1] cells
    cdef long long[::1] scopes
    cdef long long[::1] groups
    cdef Py_ssize_t row_message, width, origin
    cdef readonly bint full
    cdef readonly Py_ssize_t row_count, scope_count, group_count
    cdef Py_ssize_t size, bad_ids, points
    cdef unsigned long long value, tag, attribute_tag, ids_seen
    cdef long long any_type, any_a, any_b

    cpdef reset(self, bytes data)
    @cython.locals(rows=Py_ssize_t, scopes=Py_ssize_t, groups=Py_ssize_t)
    cpdef add(self, Py_ssize_t start, Py_ssize_t end)
    @cython.locals(items="long long", invalid="long long", row=Py_ssize_t, base=Py_ssize_t, number="long long")
    cpdef count(self, Py_ssize_t first, Py_ssize_t last)
    cpdef tables(self)

    @cython.locals(at=Py_ssize_t, last=Py_ssize_t)
    cdef int _request(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(base=Py_ssize_t, last=Py_ssize_t)
    cdef int _group(self, Py_ssize_t at, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(base=Py_ssize_t, last=Py_ssize_t)
    cdef int _scope(self, Py_ssize_t at, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(base=Py_ssize_t, cell=Py_ssize_t, field="unsigned long long", last=Py_ssize_t)
    cdef int _row(self, Py_ssize_t at, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(kind=int, slot=int, wire=int)
    cdef Py_ssize_t _field(self, Py_ssize_t base, Py_ssize_t at, Py_ssize_t pos, Py_ssize_t end,
                           Py_ssize_t field) except -1
    @cython.locals(last=Py_ssize_t)
    cdef Py_ssize_t _submessage(self, Py_ssize_t base, Py_ssize_t at, Py_ssize_t pos, Py_ssize_t end,
                                int kind) except -1
    @cython.locals(key=Py_ssize_t, cell=Py_ssize_t)
    cdef int _attribute(self, Py_ssize_t base, Py_ssize_t at, Py_ssize_t pos, Py_ssize_t end) except -1
    cdef int _status(self, Py_ssize_t base, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(is_exception=bint, seen=bint, cell=Py_ssize_t, last=Py_ssize_t, key=Py_ssize_t)
    cdef int _event(self, Py_ssize_t base, Py_ssize_t at, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(name="const unsigned char*", i=Py_ssize_t)
    cdef bint _is_exception(self, Py_ssize_t pos, Py_ssize_t end) noexcept
    @cython.locals(bit="unsigned long long")
    cdef Py_ssize_t _id(self, Py_ssize_t base, int slot, Py_ssize_t pos, Py_ssize_t end, int kind) except -1

    @cython.locals(seen="unsigned long long", bit="unsigned long long", field="unsigned long long", kind=int, wire=int,
                   last=Py_ssize_t)
    cdef Py_ssize_t _check(self, Py_ssize_t pos, Py_ssize_t end, int message, int depth) except -1
    @cython.locals(buf="const unsigned char*", size=Py_ssize_t, value=Py_ssize_t)
    cdef Py_ssize_t _key_value(self, Py_ssize_t pos, Py_ssize_t end, int depth) except -2
    @cython.locals(key=Py_ssize_t, key_seen=bint, value_seen=bint, last=Py_ssize_t)
    cdef Py_ssize_t _key_value_slowly(self, Py_ssize_t pos, Py_ssize_t end, int depth) except -2
    @cython.locals(buf="const unsigned char*")
    cdef int _any(self, Py_ssize_t pos, Py_ssize_t end, int depth) except -1
    @cython.locals(found="unsigned long long", known=bint, kind=int, wire=int, a="long long", b="long long")
    cdef int _any_slowly(self, Py_ssize_t pos, Py_ssize_t end, int depth) except -1
    cdef int _too_deep(self, Py_ssize_t pos) except -1
    @cython.locals(first=Py_ssize_t, index=Py_ssize_t, i=Py_ssize_t)
    cdef Py_ssize_t _match(self, Py_ssize_t start, Py_ssize_t size) noexcept
    @cython.locals(field="unsigned long long")
    cdef inline int _kind_of(self, int message) noexcept

    cdef Py_ssize_t _value(self, Py_ssize_t pos, Py_ssize_t end, int kind, int wire, int depth) except -1
    @cython.locals(size=Py_ssize_t)
    cdef Py_ssize_t _packed(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(wire=int)
    cdef Py_ssize_t _skip(self, Py_ssize_t pos, Py_ssize_t end, int depth) except -1
    cdef Py_ssize_t _skip_group(self, Py_ssize_t pos, Py_ssize_t end, unsigned long long number, int depth) except -1
    @cython.locals(byte="unsigned char")
    cdef inline Py_ssize_t _tag(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(start=Py_ssize_t)
    cdef Py_ssize_t _long_tag(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(byte="unsigned char")
    cdef inline Py_ssize_t _length(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(start=Py_ssize_t)
    cdef Py_ssize_t _long_length(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(byte="unsigned long long", value="unsigned long long", shift="unsigned long long", start=Py_ssize_t)
    cdef Py_ssize_t _varint(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(byte="unsigned long long", value="unsigned long long", i=Py_ssize_t)
    cdef Py_ssize_t _fixed(self, Py_ssize_t pos, Py_ssize_t end, Py_ssize_t size) except -1
    @cython.locals(low="unsigned long long")
    cdef inline long long _enum(self) noexcept
    @cython.locals(sign="unsigned long long")
    cdef inline long long _signed(self, unsigned long long value) noexcept
    @cython.locals(last=Py_ssize_t)
    cdef inline Py_ssize_t _string(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(start=Py_ssize_t, bits="unsigned char")
    cdef inline int _text(self, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(byte="unsigned char", low="unsigned char", high="unsigned char", more=Py_ssize_t, i=Py_ssize_t)
    cdef int _utf8(self, Py_ssize_t pos, Py_ssize_t end) except -1
    cdef int _fail(self, str reason, Py_ssize_t pos) except -1
    cdef _grown(self, long long[::1] table, Py_ssize_t width)
    cdef _allocate(self)


@cython.locals(bits="unsigned char", i=Py_ssize_t)
cdef unsigned char _sixteen(const unsigned char* buf, Py_ssize_t at) noexcept
@cython.locals(byte="unsigned long long", value="unsigned long long", i=Py_ssize_t)
cdef unsigned long long _little_endian(const unsigned char* buf, Py_ssize_t at) noexcept
@cython.locals(byte="unsigned long long", value="unsigned long long", i=Py_ssize_t)
cdef unsigned long long _big_endian(const unsigned char* buf, Py_ssize_t at) noexcept
