# The types that make `_amounts_py.py` fast.
cimport cython

cdef long long NANO_MAX
cdef int INPUT, OUTPUT, REQUESTS, FIELDS_END
cdef int PLAIN, TOKENS, HARD
cdef int NOT_KNOWN, KNOWN, NOT_TRIED


@cython.locals(rows=Py_ssize_t)
cpdef amounts(plan, used, places, parts, others)

@cython.locals(row=Py_ssize_t, number=Py_ssize_t, field=int, line=Py_ssize_t, main=Py_ssize_t, good=bint)
cdef void fill(const long long[::1] plan, const long long[:, ::1] used, const long long[::1] places,
               const long long[:, ::1] parts, const long long[:, ::1] others, long long[::1] counted,
               long long[::1] nano, unsigned char[::1] known) noexcept

@cython.locals(step="long long", exact="long long")
cdef void _round_up(const long long[:, ::1] others, Py_ssize_t number, Py_ssize_t main,
                    long long[::1] counted) noexcept

@cython.locals(kind=int, side=int, own="long long")
cdef bint _tokens(const long long[:, ::1] parts, Py_ssize_t number, long long[::1] counted) noexcept

@cython.locals(rough=double, total="long long", rest="long long", field=int, price="long long", units="long long",
               more="long long")
cdef void _charge(const long long[:, ::1] parts, Py_ssize_t number, long long whole, long long[::1] counted,
                  Py_ssize_t row, long long[::1] nano, unsigned char[::1] known) noexcept
