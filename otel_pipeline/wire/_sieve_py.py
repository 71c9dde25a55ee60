"""The sieve: walks a request to all its strings and keeps those that were not seen before, end to end in one buffer.

Compiled as `_sieve_c` with the types of `_sieve_c.pxd`; `kernel.py` chooses the variant.

Theory: telemetry repeats itself. Nearly every attribute stands in thousands of spans, byte for byte. A *unit* is an
attribute, a value or a text that stands in a message of its own. A unit that was looked at and found clean is kept in a
table of bounded size, and is passed over when it comes again; so what must be searched is what is new. It passes for
known only if all its bytes are equal to those in the table: the hash only tells where to look. Whoever can make hashes
collide makes units be searched again, nothing else. A table holds no unit that was not searched, since only `remember`
and `learn` fill it.

The keys of attributes are kept by themselves: each new one is handed out to be judged once, and the values of a known
key are searched without it. Numbers, ids and times are never looked at.
"""

from array import array

from otel_pipeline.limits import NESTING_MAX, SIEVE_BYTES_KEPT, SIEVE_NEW_KEYS_MAX, SIEVE_NEW_UNITS_MAX

MASK = 0xFFFFFFFFFFFFFFFF
TAG_MAX = 0xFFFFFFFF
"""Names with a C type: Cython makes Python objects of literals above 31 bits."""
TEXT = 1
PAIR = 2
VALUE = 3
KEY = 4
"""Kinds of units; in the layout a larger number is a message, counted from KEY."""

WIDTH = 6
"""Cells of a unit: start, end, kind, where its texts and its runs begin, whether it is flagged."""

PLACES = 256
"""Places in a row whose last unit is kept in mind."""

NOVELTIES = 16
"""Where so many units in succession were new, only every eighth is looked up: such a place has ids."""

REMEMBERED_MAX = 64
"""Where more units of a request are new, `remember` looks at a quarter of them, at another one each time."""


class Known:
    """Byte strings of a kind that are known to be clean, in so many slots (a power of two) of so many bytes.

    `factor` is random, odd and of 64 bits; `weights` are random, of 15 bits, sixteen more than bytes in a slot.
    """

    def __init__(self, slots, slot_bytes, factor, weights):
        self.mask = slots - 1
        self.slot_bytes = slot_bytes
        self.factor = factor
        self.weights = array("h", weights)
        self.hashes = array("Q", bytes(8 * slots))
        self.sizes = array("q", bytes(8 * slots))
        self.seen = array("Q", bytes(8 * slots))
        self.store_kept = bytearray(slots * slot_bytes)
        self.store = self.store_kept
        self.code = 0

    def find(self, buf, start, end, kind):
        """Whether it is known. Leaves its hash in `code`."""
        size = end - start
        if size > self.slot_bytes:
            self.code = 0
            return False
        code = self._hash(buf, start, end, kind)
        self.code = code
        slot = code & self.mask
        size = size * 8 + kind
        if self.hashes[slot] == code and self.sizes[slot] == size:
            return _same(buf, start, self.store, slot * self.slot_bytes, size >> 3)
        slot ^= 1
        if self.hashes[slot] == code and self.sizes[slot] == size:
            return _same(buf, start, self.store, slot * self.slot_bytes, size >> 3)
        return False

    def is_second(self, code):
        """Whether this hash was asked about not long ago: what comes once must not push out what comes often."""
        slot = code & self.mask
        if self.seen[slot] == code:
            return True
        self.seen[slot] = code
        return False

    def add(self, buf, start, end, kind, code):
        """Keep it, in the place of something else if need be."""
        slot = code & self.mask
        if self.sizes[slot] and self.sizes[slot ^ 1]:
            self._copy(slot, slot ^ 1)
        elif self.sizes[slot]:
            slot ^= 1
        size = end - start
        base = slot * self.slot_bytes
        for i in range(size):
            self.store[base + i] = buf[start + i]
        self.hashes[slot] = code
        self.sizes[slot] = size * 8 + kind

    def _copy(self, slot, other):
        base = slot * self.slot_bytes
        target = other * self.slot_bytes
        for i in range(self.slot_bytes):
            self.store[target + i] = self.store[base + i]
        self.hashes[other] = self.hashes[slot]
        self.sizes[other] = self.sizes[slot]

    def _hash(self, buf, start, end, kind):
        """The sum of the bytes, each with the weight of its place; the last sixteen count twice."""
        size = end - start
        value = 0
        if size < 16:
            for i in range(size):
                value += buf[start + i] * self.weights[i]
        else:
            for i in range(size & ~15):
                value += buf[start + i] * self.weights[i]
            start = end - 16
            for i in range(16):
                value += buf[start + i] * self.weights[self.slot_bytes + i]
        code = value
        code = ((code * 1024 + size * 8 + kind) * self.factor) & MASK
        return code ^ code >> 32


class Sieve:
    """Sifts one request after the other. `layout` has for each message `width` parts by field number: 0, TEXT, PAIR,
    VALUE, or KEY plus the number of a message.

    A value longer than `value_bytes_max` flags its unit. Runs of at least `run_bytes_min` of the bytes that are 1 in
    `in_run` are copied a second time, into a buffer of runs; 0: none are.
    """

    def __init__(self, layout, width, value_bytes_max, in_run, run_bytes_min, units, keys):
        self.layout_kept = layout
        self.layout = layout
        self.width = width
        self.value_bytes_max = value_bytes_max
        self.in_run_kept = in_run
        self.in_run = in_run
        self.run_bytes_min = run_bytes_min
        self.known = units
        self.keys = keys
        self.turn = 0
        self.before = array("q", bytes(8 * 4 * PLACES))
        self.novelties = array("q", bytes(8 * PLACES))
        self._allocate()
        self._reset(b"")

    def _allocate(self):
        self.texts_kept = bytearray(4096)
        self.texts_room = 4096
        self.texts = self.texts_kept
        self.runs_kept = bytearray(4096)
        self.runs_room = 4096
        self.runs = self.runs_kept
        self.units_kept = array("q", bytes(8 * 64 * WIDTH))
        self.units = self.units_kept
        self.codes_kept = array("Q", bytes(8 * 64))
        self.codes = self.codes_kept
        self.new_kept = array("q", bytes(8 * 64 * 3))
        self.new = self.new_kept
        self.again_kept = array("q", bytes(8 * 64 * 2))
        self.again = self.again_kept

    def _reset(self, data):
        if self.texts_room > SIEVE_BYTES_KEPT or len(self.units) * 8 > SIEVE_BYTES_KEPT:
            self._allocate()
        self.data = data
        self.buf = data
        self.text_size = 0
        self.run_size = 0
        self.unit_count = 0
        self.new_count = 0
        self.flag_count = 0
        self.again_count = 0

    def sift(self, data, message):
        """Walk a request whose layout is that of `message`. False: it is none, or one that protobuf must read, or there
        is too much that is new.

        Forgets all units of the last one.
        """
        self._reset(data)
        for i in range(4 * PLACES):
            self.before[i] = 0
        for i in range(PLACES):
            self.novelties[i] = 0
        return self._message(0, len(data), message)

    def new_texts(self):
        """The texts that are not known, a zero behind each."""
        return bytes(memoryview(self.texts_kept)[: self.text_size])

    def new_runs(self):
        """The runs in them, a zero behind each."""
        return bytes(memoryview(self.runs_kept)[: self.run_size])

    def new_keys(self):
        """The keys that are not known: unit, start and end of each."""
        return [tuple(self.new[3 * i : 3 * i + 3]) for i in range(self.new_count)]

    def learn(self, start, end):
        """The key there is clean."""
        if not self.keys.find(self.buf, start, end, KEY) and end - start <= self.keys.slot_bytes:
            self.keys.add(self.buf, start, end, KEY, self.keys.code)

    def flag(self, unit):
        """It is not clean."""
        if not self.units[unit * WIDTH + 5]:
            self.units[unit * WIDTH + 5] = 1
            self.flag_count += 1

    def flag_text(self, place):
        """The unit whose text stands at a place of `new_texts` is not clean."""
        self.flag(self._unit_at(place, 3))

    def flag_run(self, place):
        """The unit whose run stands at a place of `new_runs` is not clean."""
        self.flag(self._unit_at(place, 4))

    def acquit(self, start):
        """The flagged unit that starts there is clean after all."""
        unit = self._unit_at(start, 0)
        if self.units[unit * WIDTH] == start and self.units[unit * WIDTH + 5]:
            self.units[unit * WIDTH + 5] = 0
            self.flag_count -= 1

    def flagged(self):
        """Where the flagged units start, in rising order."""
        if self.flag_count == 0:
            return []
        starts = [self.units[i * WIDTH] for i in range(self.unit_count) if self.units[i * WIDTH + 5]]
        again = [self.again[2 * i] for i in range(self.again_count) if self.units[self.again[2 * i + 1] * WIDTH + 5]]
        return sorted(starts + again) if again else starts

    def remember(self):
        """All units that are not flagged are clean: those that came twice are known from now on."""
        self.turn += 1
        part = 3 if self.unit_count > REMEMBERED_MAX else 0
        for unit in range(self.unit_count):
            base = unit * WIDTH
            code = self.codes[unit]
            if (code ^ self.turn) & part or code == 0 or self.units[base + 5] or not self.known.is_second(code):
                continue
            start = self.units[base]
            end = self.units[base + 1]
            if not self.known.find(self.buf, start, end, self.units[base + 2]):
                self.known.add(self.buf, start, end, self.units[base + 2], code)
        self._reset(b"")

    def around(self, pos, end, place):
        """Of the request the first field from `pos` that ends behind a place: tag, start, start of the value, end.

        None: it cannot be read.
        """
        if pos < 0 or end > len(self.data):
            return None
        while 0 <= pos < end:
            start = pos
            pos = self._field(pos, end)
            if pos > place:
                return self.tag, start, self.body, pos
        return None

    # -- the walk ------------------------------------------------------------------------------------------------------

    def _message(self, pos, end, message):
        """Walk a message by its layout; whether it could be read."""
        buf = self.buf
        place = message * 128
        while pos < end:
            # Nearly all fields have a tag and a length of one byte.
            tag = buf[pos]
            if tag & 135 == 2 and end - pos >= 2 and buf[pos + 1] < 128:
                size = buf[pos + 1]
                body = pos + 2
                if size > end - body:
                    return False
                pos = body + size
            else:
                pos = self._field(pos, end)
                if pos < 0:
                    return False
                tag = self.tag
                body = self.body
            if tag & 7 == 2 and tag >> 3 < self.width:
                part = self.layout[message * self.width + (tag >> 3)]
                if part >= KEY:
                    if not self._message(body, pos, part - KEY):
                        return False
                elif part:
                    if not self._unit(body, pos, part, place & (4 * PLACES - 1)):
                        return False
                    place += 4
        return True

    def _unit(self, pos, end, kind, place):
        """Look at a unit; whether it could be read.

        Rows resemble each other: often it is what stood at its place in the row before, and shares its fate.
        """
        size = end - pos
        if size == 0:
            return True
        as_before = self.before[place + 1] == size and self.before[place + 2] == kind
        if as_before and _same(self.buf, pos, self.buf, self.before[place], size):
            if self.before[place + 3]:
                self._again(pos, self.before[place + 3] - 1)
            return self.again_count < SIEVE_NEW_UNITS_MAX
        self.before[place] = pos
        self.before[place + 1] = size
        self.before[place + 2] = kind
        self.before[place + 3] = 0
        count = self.novelties[place >> 2]
        if count > NOVELTIES and count & 7:
            self.known.code = 0  # no hash, so it is not remembered
        elif self.known.find(self.buf, pos, end, kind):
            self.novelties[place >> 2] = 0
            return True
        self.novelties[place >> 2] = count + 1
        count = self.unit_count
        fine = self._new_unit(pos, end, kind)
        if self.unit_count > count:
            self.before[place + 3] = self.unit_count
        return fine and self.unit_count + self.again_count < SIEVE_NEW_UNITS_MAX

    def _again(self, start, unit):
        """A unit that is new in this request came again."""
        if (self.again_count + 1) * 2 > len(self.again):
            self.again_kept = self.again_kept * 2
            self.again = self.again_kept
        self.again[self.again_count * 2] = start
        self.again[self.again_count * 2 + 1] = unit
        self.again_count += 1

    def _new_unit(self, pos, end, kind):
        """Take note of a unit that is not known, if it has anything to look at; whether it could be read."""
        unit = self.unit_count
        if unit == len(self.codes):
            self.units_kept = self.units_kept * 2
            self.units = self.units_kept
            self.codes_kept = self.codes_kept * 2
            self.codes = self.codes_kept
        base = unit * WIDTH
        self.codes[unit] = self.known.code
        self.units[base] = pos
        self.units[base + 1] = end
        self.units[base + 2] = kind
        self.units[base + 3] = self.text_size
        self.units[base + 4] = self.run_size
        self.units[base + 5] = 0
        self.unit_count += 1
        before = self.text_size + self.new_count + self.flag_count
        if kind == PAIR:
            fine = self._pair(pos, end, 0)
        elif kind == VALUE:
            fine = self._value(pos, end, 0)
        else:
            self._text(pos, end)
            fine = True
        if before == self.text_size + self.new_count + self.flag_count:  # a number of a known key, or nothing
            self.unit_count -= 1
        return fine

    def _pair(self, pos, end, depth):
        while pos < end:
            pos = self._field(pos, end)
            if pos < 0:
                return False
            if self.tag == 10:
                if not self.keys.find(self.buf, self.body, pos, KEY):
                    if self.new_count == SIEVE_NEW_KEYS_MAX:
                        return False
                    self._new_key(self.body, pos)
            elif self.tag == 18 and not self._value(self.body, pos, depth + 1):
                return False
        return True

    def _new_key(self, pos, end):
        if (self.new_count + 1) * 3 > len(self.new):
            self.new_kept = self.new_kept * 2
            self.new = self.new_kept
        self.new[self.new_count * 3] = self.unit_count - 1
        self.new[self.new_count * 3 + 1] = pos
        self.new[self.new_count * 3 + 2] = end
        self.new_count += 1

    def _value(self, pos, end, depth):
        if depth > NESTING_MAX:
            self.flag(self.unit_count - 1)
            return True
        while pos < end:
            pos = self._field(pos, end)
            if pos < 0:
                return False
            if self.tag == 10 or self.tag == 58:  # a string, bytes
                if pos - self.body > self.value_bytes_max:
                    self.flag(self.unit_count - 1)
                self._text(self.body, pos)
            elif (self.tag == 42 or self.tag == 50) and not self._values(self.body, pos, self.tag == 50, depth + 1):
                return False
        return True

    def _values(self, pos, end, pairs, depth):
        """The values of an array, or the pairs of a map."""
        while pos < end:
            pos = self._field(pos, end)
            if pos < 0:
                return False
            if self.tag == 10:
                fine = self._pair(self.body, pos, depth) if pairs else self._value(self.body, pos, depth)
                if not fine:
                    return False
        return True

    def _text(self, pos, end):
        """Copy a text, and the runs in it."""
        size = end - pos
        if size + 1 > self.texts_room - self.text_size:
            self.texts_kept = self._grown(self.texts_kept, self.text_size, size + 1)
            self.texts = self.texts_kept
            self.texts_room = len(self.texts_kept)
        _copy(self.texts, self.text_size, self.buf, pos, size)
        self.texts[self.text_size + size] = 0
        self.text_size += size + 1
        if self.run_bytes_min > 0:
            self._runs(pos, end)

    def _runs(self, low, end):
        """Copy the runs, each with the byte before and the byte behind it.

        A window of `least` bytes is read from its end; what does not belong moves it behind that.
        """
        buf = self.buf
        start = low
        in_run = self.in_run
        least = self.run_bytes_min
        pos = low + least - 1
        while pos < end:
            first = pos
            while first >= low and in_run[buf[first]]:
                first -= 1
            if first >= low:
                low = first + 1
            else:
                first = low
                low = pos + 1
                while low < end and in_run[buf[low]]:
                    low += 1
                self._run(first - 1 if first > start else first, low + 1 if low < end else low)
            pos = low + least - 1

    def _run(self, pos, end):
        size = end - pos
        if size + 1 > self.runs_room - self.run_size:
            self.runs_kept = self._grown(self.runs_kept, self.run_size, size + 1)
            self.runs = self.runs_kept
            self.runs_room = len(self.runs_kept)
        _copy(self.runs, self.run_size, self.buf, pos, size)
        self.runs[self.run_size + size] = 0
        self.run_size += size + 1

    def _grown(self, kept, used, more):
        grown = bytearray(2 * len(kept) + more)
        grown[:used] = memoryview(kept)[:used]
        return grown

    def _unit_at(self, place, cell):
        """The last unit whose cell is not behind a place."""
        low = 0
        high = self.unit_count
        while high - low > 1:
            middle = (low + high) // 2
            if self.units[middle * WIDTH + cell] <= place:
                low = middle
            else:
                high = middle
        return low

    # -- fields --------------------------------------------------------------------------------------------------------

    def _field(self, pos, end):
        """Read a field: its tag and the start of its value are left in `tag` and `body`. Returns its end, or -1."""
        buf = self.buf
        tag = buf[pos]
        pos += 1
        if tag >= 128:
            pos = self._varint(pos - 1, end)
            if pos < 0 or self.number > TAG_MAX:
                return -1
            tag = self.number
        self.tag = tag
        self.body = pos
        wire = tag & 7
        if wire == 2:
            pos = self._varint(pos, end)
            self.body = pos
            if pos < 0 or self.number > end - pos:
                return -1
            size = self.number
            return pos + size
        if wire == 0:
            return self._varint(pos, end)
        size = 8 if wire == 1 else 4
        if (wire != 1 and wire != 5) or size > end - pos:
            return -1
        return pos + size

    def _varint(self, pos, end):
        """Read a varint into `number`; returns its end, or -1."""
        value = 0
        shift = 0
        while pos < end and shift <= 63:
            byte = self.buf[pos]
            pos += 1
            value |= (byte & 127) << shift
            if byte < 128:
                self.number = value
                return pos
            shift += 7
        return -1


def _copy(target, at, buf, start, size):
    for i in range(size):
        target[at + i] = buf[start + i]


def _same(buf, start, other, at, size):
    """Whether so many bytes are equal. Sixteen are compared at a time; the last sixteen may overlap those before."""
    if size < 16:
        while size and buf[start + size - 1] == other[at + size - 1]:
            size -= 1
        return size == 0
    bits = 0
    for i in range(size & ~15):
        bits |= buf[start + i] ^ other[at + i]
    start += size - 16
    at += size - 16
    for i in range(16):
        bits |= buf[start + i] ^ other[at + i]
    return bits == 0
