"""The kernel: walks OTLP bytes once and writes down where everything is, so that nothing is ever decoded.

It is one source in two variants: compiled by Cython with the types of `_scan_c.pxd` (as `_scan_c`), and interpreted as
it stands. `kernel.py` chooses. Nothing here knows of processors, clocks or files: bytes in, tables out.

How it stays safe. Every offset is compared with the end of its own message before a byte is read, and a length is
compared with what is left before it is added, so no sum can overflow. Nesting has a limit, varints have at most ten
bytes, tags and lengths five, as in protobuf's own parsers. Strings must be UTF-8, since other receivers refuse a whole
batch for one that is not. A request that is legal but repeats what should stand once (two names in a span) is not
guessed at: `Uncanonical` asks the caller to let protobuf normalise it first. An error leaves the tables as they were
before the request.

How it stays fast. What nearly every field looks like - a tag of one byte, a length of one byte, a string value - is
tried first and read into locals; a store through `self` would make the compiler read everything else anew.
"""

import numpy as np

from otel_pipeline.errors import NewKey, Uncanonical, WireError
from otel_pipeline.limits import NESTING_MAX, REQUEST_BYTES_MAX, ROWS_KEPT, ROWS_MAX
from otel_pipeline.wire.schema import KINDS

UINT32_MAX = 0xFFFFFFFF
"""A name with a C type: Cython makes Python objects of literals above 31 bits."""


class Scanner:
    """Collects the rows of several requests of one signal over one buffer; `reset` starts the next batch.

    `row_message` is the schema's number of the row's message, `slots[field]` the cell of each of its fields that is
    kept. `keys` are the attributes to find; the first three must be the type, message and stack trace of an exception.

    Of many keys few occur. So a row has cells for those only that have occurred so far, each at its place; place 0 is
    always empty and stands for all others. For another one `add` raises NewKey: then `widen`, `reset`, and add all
    requests again. That happens once for each key at most.
    """

    def __init__(self, row_message, slots, keys):
        self.kinds = KINDS
        self.slots = slots
        self.row_message = row_message
        self.attribute_tag = KINDS.index(17, row_message * 32) % 32 * 8 + 2  # 17: a repeated KeyValue
        self.keys_kept = b"".join(keys)
        self.keys = self.keys_kept
        self.key_starts = np.cumsum([0] + [len(key) for key in keys], dtype=np.int64)
        self.first_of_size = np.full(256, -1, np.int64)
        self.next_of_size = np.full(len(keys), -1, np.int64)
        for index in range(len(keys) - 1, -1, -1):
            size = len(keys[index])
            if size < 256:
                self.next_of_size[index] = self.first_of_size[size]
                self.first_of_size[size] = index
        self.seen_kept = np.zeros(len(keys), np.uint8)
        self.seen = self.seen_kept
        self.places_kept = np.zeros(len(keys), np.int64)
        self.places = self.places_kept
        self.place_count = 1
        self.width = 37
        self._allocate()
        self.reset(b"")

    def widen(self):
        """Give each key that has occurred a place; returns the place of every key, 0 for none (int64)."""
        for key in range(len(self.seen)):
            if self.seen[key] and self.places[key] == 0:
                self.places[key] = self.place_count
                self.place_count += 1
        self.width = 32 + 5 * self.place_count
        self._allocate()
        return self.places_kept

    def _allocate(self):
        self.cells = np.empty(64 * self.width, np.int64)
        self.scopes = np.empty(64 * 9, np.int64)
        self.groups = np.empty(64 * 9, np.int64)

    def reset(self, data):
        """Forget all rows; `data` is the buffer of the next batch."""
        if len(self.cells) > ROWS_KEPT * self.width:
            self._allocate()
        self.data = data
        self.buf = data
        self.row_count = 0
        self.scope_count = 0
        self.group_count = 0
        self.seen_kept.fill(0)

    def add(self, start, end):
        """Scan the request at data[start:end] and append its rows; on an error nothing is appended.

        `full` then tells whether the reason was that the batch has no room.
        """
        self.full = False
        if start < 0 or end > len(self.data) or start > end:
            raise ValueError("not a part of the buffer")
        if end - start > REQUEST_BYTES_MAX:
            raise WireError(f"request of {end - start} bytes, {REQUEST_BYTES_MAX} are allowed", 0)
        rows = self.row_count
        scopes = self.scope_count
        groups = self.group_count
        self.origin = start
        try:
            self._request(start, end)
        except BaseException:
            self.row_count = rows
            self.scope_count = scopes
            self.group_count = groups
            raise

    def count(self, first, last):
        """Items and invalid items (data points of a metric, else rows) in the rows first..last."""
        items = 0
        invalid = 0
        for row in range(first, last):
            base = row * self.width
            number = self.cells[base + 6] if self.row_message == 12 else 1
            items += number
            if self.cells[base + 5]:
                invalid += number
        return items, invalid

    def tables(self):
        """The rows, scopes and groups found so far, one line each; views that live until the next `reset`."""
        rows = np.asarray(self.cells)[: self.row_count * self.width].reshape(self.row_count, self.width)
        scopes = np.asarray(self.scopes)[: self.scope_count * 9].reshape(self.scope_count, 9)
        groups = np.asarray(self.groups)[: self.group_count * 9].reshape(self.group_count, 9)
        return rows, scopes, groups

    # -- the containers ------------------------------------------------------------------------------------------------

    def _request(self, pos, end):
        while pos < end:
            at = pos
            pos = self._tag(pos, end)
            if self.tag == 10:  # field 1, length-delimited: a group
                pos = self._length(pos, end)
                last = pos + self.size
                self._group(at, pos, last)
                pos = last
            else:
                pos = self._skip(pos, end, 0)

    def _group(self, at, pos, end):
        if (self.group_count + 1) * 9 > len(self.groups):
            self.groups = self._grown(self.groups, 9)
        base = self.group_count * 9
        self.groups[base] = at
        self.groups[base + 1] = pos
        self.groups[base + 2] = end
        self.groups[base + 3] = 0
        self.groups[base + 4] = self.scope_count
        self.groups[base + 6] = 0
        self.groups[base + 7] = 0
        self.groups[base + 8] = 0
        while pos < end:
            at = pos
            pos = self._tag(pos, end)
            if self.tag == 18:  # field 2: a scope with its rows
                pos = self._length(pos, end)
                last = pos + self.size
                self._scope(at, pos, last)
                pos = last
            elif self.tag == 10:  # field 1: the resource
                pos = self._length(pos, end)
                if self.groups[base + 6]:
                    raise Uncanonical
                self.groups[base + 6] = at
                self.groups[base + 7] = pos
                self.groups[base + 8] = pos + self.size
                pos = self._check(pos, pos + self.size, 5, 2)
            elif self.tag == 26:  # field 3: schema URL
                pos = self._string(pos, end)
            else:
                pos = self._skip(pos, end, 1)
        self.groups[base + 5] = self.scope_count
        self.group_count += 1

    def _scope(self, at, pos, end):
        if (self.scope_count + 1) * 9 > len(self.scopes):
            self.scopes = self._grown(self.scopes, 9)
        base = self.scope_count * 9
        self.scopes[base] = at
        self.scopes[base + 1] = pos
        self.scopes[base + 2] = end
        self.scopes[base + 3] = self.group_count
        self.scopes[base + 4] = self.row_count
        self.scopes[base + 6] = 0
        self.scopes[base + 7] = 0
        self.scopes[base + 8] = 0
        while pos < end:
            at = pos
            pos = self._tag(pos, end)
            if self.tag == 18:  # field 2: a row
                pos = self._length(pos, end)
                last = pos + self.size
                self._row(at, pos, last)
                pos = last
            elif self.tag == 10:  # field 1: the instrumentation scope
                pos = self._length(pos, end)
                if self.scopes[base + 6]:
                    raise Uncanonical
                self.scopes[base + 6] = at
                self.scopes[base + 7] = pos
                self.scopes[base + 8] = pos + self.size
                pos = self._check(pos, pos + self.size, 4, 3)
            elif self.tag == 26:
                pos = self._string(pos, end)
            else:
                pos = self._skip(pos, end, 2)
        self.scopes[base + 5] = self.row_count
        self.scope_count += 1

    # -- a row ---------------------------------------------------------------------------------------------------------

    def _row(self, at, pos, end):
        if (self.row_count + 1) * self.width > len(self.cells):
            self.cells = self._grown(self.cells, self.width)
        base = self.row_count * self.width
        for cell in range(base, base + self.width):
            self.cells[cell] = 0
        self.cells[base] = at
        self.cells[base + 1] = pos
        self.cells[base + 2] = end
        self.cells[base + 3] = self.scope_count
        self.cells[base + 4] = self.group_count
        self.bad_ids = 0
        self.ids_seen = 0
        self.points = 0
        while pos < end:
            at = pos
            pos = self._tag(pos, end)
            field = self.tag >> 3
            if self.tag == self.attribute_tag:  # most fields are attributes
                pos = self._length(pos, end)
                last = pos + self.size
                self._attribute(base, at, pos, last)
                pos = last
            elif field < 32:
                pos = self._field(base, at, pos, end, field)
            else:
                pos = self._skip(pos, end, 3)
        self.cells[base + 5] = self.bad_ids
        self.cells[base + 6] = self.points
        self.row_count += 1

    def _field(self, base, at, pos, end, field):
        """One field of a row: kept in its slot, or checked and left."""
        kind = self.kinds[self.row_message * 32 + field]
        slot = self.slots[field]
        wire = self.tag & 7
        if wire == 2 and kind >= 4:
            if kind >= 16:
                return self._submessage(base, at, pos, end, kind)
            if slot == 0:
                return self._value(pos, end, kind, wire, 3)
            if kind == 5:
                pos = self._string(pos, end)
                if self.cells[base + slot]:
                    raise Uncanonical
                self.cells[base + slot] = at
                self.cells[base + slot + 1] = pos - self.size
                self.cells[base + slot + 2] = pos
                return pos
            return self._id(base, slot, pos, end, kind)
        pos = self._value(pos, end, kind, wire, 3)
        if slot and kind == 1 and wire == 0:
            self.cells[base + slot] = self._enum()
        elif slot and ((kind == 2 and wire == 1) or (kind == 3 and wire == 5)):
            self.cells[base + slot] = self._signed(self.value)
        return pos

    def _submessage(self, base, at, pos, end, kind):
        pos = self._length(pos, end)
        last = pos + self.size
        if kind == 24:  # repeated Event
            self._event(base, at, pos, last)
        elif kind < 80:  # another repeated message
            self._check(pos, last, kind - 16, 4)
        else:  # a Status, the body of a log record, or one of the members of a metric's oneof
            if self.cells[base + 17]:
                raise Uncanonical
            self.cells[base + 17] = at
            self.cells[base + 18] = pos
            self.cells[base + 19] = last
            if kind == 87:
                self._status(base, pos, last)
            elif kind == 80:
                self._any(pos, last, 4)
                self.cells[base + 20] = self.any_type
                self.cells[base + 21] = self.any_a
                self.cells[base + 22] = self.any_b
            else:
                self._check(pos, last, kind - 80, 4)
        return last

    def _attribute(self, base, at, pos, end):
        key = self._key_value(pos, end, 4)
        if key >= 0:
            self.seen[key] = 1
            if not self.places[key]:
                raise NewKey
            cell = base + 32 + self.places[key] * 5
            if self.cells[cell + 1]:
                raise Uncanonical
            self.cells[cell] = self.any_type
            self.cells[cell + 1] = at
            self.cells[cell + 2] = end
            self.cells[cell + 3] = self.any_a
            self.cells[cell + 4] = self.any_b

    def _status(self, base, pos, end):
        while pos < end:
            pos = self._tag(pos, end)
            if self.tag == 24:
                pos = self._varint(pos, end)
                self.cells[base + 20] = self._enum()
            elif self.tag == 18:
                pos = self._string(pos, end)
                if self.cells[base + 21]:
                    raise Uncanonical
                self.cells[base + 21] = pos - self.size
                self.cells[base + 22] = pos
            else:
                pos = self._skip(pos, end, 4)

    def _event(self, base, at, pos, end):
        """Check an event; if it is the row's first exception, note its type, message and stack trace."""
        is_exception = False
        seen = self.cells[base + 24] != 0
        for cell in range(base + 26, base + 32):
            if not seen:
                self.cells[cell] = 0
        while pos < end:
            pos = self._tag(pos, end)
            if self.tag == 18:  # field 2: name
                pos = self._string(pos, end)
                is_exception = self._is_exception(pos - self.size, pos)
            elif self.tag == 26:  # field 3: an attribute
                pos = self._length(pos, end)
                last = pos + self.size
                key = self._key_value(pos, last, 5)
                pos = last
                if not seen and 0 <= key < 3 and self.any_type == 1 and self.cells[base + 26 + key * 2] == 0:
                    self.cells[base + 26 + key * 2] = self.any_a
                    self.cells[base + 27 + key * 2] = self.any_b
            else:
                pos = self._value(pos, end, self._kind_of(8), self.tag & 7, 4)
        if is_exception and not seen:
            self.cells[base + 24] = at
            self.cells[base + 25] = end
        elif not seen:
            for cell in range(base + 26, base + 32):
                self.cells[cell] = 0

    def _is_exception(self, pos, end):
        name = b"exception"
        if end - pos != 9:
            return False
        for i in range(9):
            if self.buf[pos + i] != name[i]:
                return False
        return True

    def _id(self, base, slot, pos, end, kind):
        """A trace id into two cells, a span id into one; another length is counted as invalid and reads as 0."""
        bit = 1
        bit <<= slot
        if self.ids_seen & bit:
            raise Uncanonical
        self.ids_seen |= bit
        pos = self._length(pos, end)
        if self.size == (16 if kind == 6 else 8):
            self.cells[base + slot] = self._signed(_big_endian(self.buf, pos))
            if kind == 6:
                self.cells[base + slot + 1] = self._signed(_big_endian(self.buf, pos + 8))
        elif self.size:
            self.bad_ids += 1
        return pos + self.size

    # -- messages below a row ------------------------------------------------------------------------------------------

    def _check(self, pos, end, message, depth):
        """Walk a message by the table and everything below it; returns `end`."""
        if depth > NESTING_MAX:
            self._too_deep(pos)
        seen = 0
        while pos < end:
            pos = self._tag(pos, end)
            field = self.tag >> 3
            if field >= 32:
                pos = self._skip(pos, end, depth)
                continue
            kind = self.kinds[message * 32 + field]
            wire = self.tag & 7
            if wire == 2 and (kind >= 80 or kind == 6 or kind == 7):
                bit = 1
                bit <<= field
                if seen & bit:
                    raise Uncanonical
                seen |= bit
            if wire == 2 and kind >= 16:
                pos = self._length(pos, end)
                last = pos + self.size
                kind = (kind - 16) & 63
                if kind == 1:
                    self._key_value(pos, last, depth + 1)
                elif kind == 0:
                    self._any(pos, last, depth + 1)
                else:
                    if kind >= 21:
                        self.points += 1
                    self._check(pos, last, kind, depth + 1)
                pos = last
            else:
                pos = self._value(pos, end, kind, wire, depth)
        return end

    def _key_value(self, pos, end, depth):
        """Check a KeyValue; returns the index of its key or -1 if not requested, and leaves its value in any_*."""
        buf = self.buf
        if end - pos >= 4 and buf[pos] == 10 and buf[pos + 1] < 128:
            size = buf[pos + 1]
            value = pos + 2 + size
            # A key and a value, both short, and nothing else.
            if end - value >= 2 and buf[value] == 18 and buf[value + 1] < 128 and buf[value + 1] == end - value - 2:
                if depth > NESTING_MAX:
                    self._too_deep(pos)
                self._text(pos + 2, value)
                self._any(value + 2, end, depth + 1)
                return self._match(pos + 2, size)
        return self._key_value_slowly(pos, end, depth)

    def _key_value_slowly(self, pos, end, depth):
        if depth > NESTING_MAX:
            self._too_deep(pos)
        key = -1
        key_seen = False
        value_seen = False
        self.any_type = 0
        self.any_a = 0
        self.any_b = 0
        while pos < end:
            pos = self._tag(pos, end)
            if self.tag == 10:
                if key_seen:
                    raise Uncanonical
                key_seen = True
                pos = self._string(pos, end)
                key = self._match(pos - self.size, self.size)
            elif self.tag == 18:
                if value_seen:
                    raise Uncanonical
                value_seen = True
                pos = self._length(pos, end)
                last = pos + self.size
                self._any(pos, last, depth + 1)
                pos = last
            else:
                pos = self._value(pos, end, self._kind_of(1), self.tag & 7, depth)
        if not key_seen:
            key = self._match(pos, 0)
        return key

    def _any(self, pos, end, depth):
        """Check an AnyValue and leave its type and value in any_type, any_a, any_b."""
        buf = self.buf
        if end - pos >= 2 and buf[pos] == 10 and buf[pos + 1] < 128 and buf[pos + 1] == end - pos - 2:
            if depth > NESTING_MAX:
                self._too_deep(pos)
            self._text(pos + 2, end)
            self.any_type = 1
            self.any_a = pos + 2
            self.any_b = end
            return 0
        return self._any_slowly(pos, end, depth)

    def _any_slowly(self, pos, end, depth):
        if depth > NESTING_MAX:
            self._too_deep(pos)
        found = 0
        a = 0
        b = 0
        while pos < end:
            pos = self._tag(pos, end)
            wire = self.tag & 7
            kind = self._kind_of(0)
            known = (wire == 2 and kind >= 4) or (wire == 0 and kind == 1) or (wire == 1 and kind == 2)
            if known:
                if found:
                    raise Uncanonical
                found = self.tag >> 3
            if kind >= 16 and wire == 2:
                pos = self._length(pos, end)
                a = pos
                b = pos + self.size
                pos = self._check(pos, b, kind - 80, depth + 1)
            else:
                pos = self._value(pos, end, kind, wire, depth)
                if known and wire == 2:
                    a = pos - self.size
                    b = pos
                elif known:
                    a = self._signed(self.value)
        if found == 2:  # a bool
            a = 1 if a else 0
        self.any_type = found
        self.any_a = a
        self.any_b = b
        return 0

    def _too_deep(self, pos):
        self._fail("more than %d levels of nesting" % NESTING_MAX, pos)

    def _match(self, start, size):
        """The index of the key at `start` among the requested keys, or -1."""
        if size > 255:
            return -1
        index = self.first_of_size[size]
        while index >= 0:
            first = self.key_starts[index]
            i = 0
            while i < size and self.keys[first + i] == self.buf[start + i]:
                i += 1
            if i == size:
                return index
            index = self.next_of_size[index]
        return -1

    def _kind_of(self, message):
        field = self.tag >> 3
        if field >= 32:
            return 0
        return self.kinds[message * 32 + field]

    # -- fields --------------------------------------------------------------------------------------------------------

    def _value(self, pos, end, kind, wire, depth):
        """Read or skip one field that is no submessage of interest; numbers are left in `value`, lengths in `size`."""
        if wire == 0:
            return self._varint(pos, end)
        if wire == 1:
            return self._fixed(pos, end, 8)
        if wire == 5:
            return self._fixed(pos, end, 4)
        if wire == 2:
            if kind == 5:
                return self._string(pos, end)
            pos = self._length(pos, end)
            if kind == 8 and self.size % 8:
                self._fail("packed doubles of %d bytes" % self.size, pos)
            if kind == 9:
                return self._packed(pos, pos + self.size)
            if (kind == 6 and self.size != 16 and self.size) or (kind == 7 and self.size != 8 and self.size):
                self.bad_ids += 1
            return pos + self.size
        return self._skip(pos, end, depth)

    def _packed(self, pos, end):
        size = end - pos
        while pos < end:
            pos = self._varint(pos, end)
        self.size = size
        return pos

    def _skip(self, pos, end, depth):
        """Skip the field whose tag was just read, whatever it is: groups too."""
        wire = self.tag & 7
        if wire == 2:
            pos = self._length(pos, end)
            return pos + self.size
        if wire == 0:
            return self._varint(pos, end)
        if wire == 1:
            return self._fixed(pos, end, 8)
        if wire == 5:
            return self._fixed(pos, end, 4)
        if wire != 3:
            self._fail("wire type %d" % wire, pos - 1)
        return self._skip_group(pos, end, self.tag >> 3, depth + 1)

    def _skip_group(self, pos, end, number, depth):
        if depth > NESTING_MAX:
            self._too_deep(pos)
        while pos < end:
            pos = self._tag(pos, end)
            if self.tag & 7 == 4:
                if self.tag >> 3 != number:
                    self._fail("group %d ends as %d" % (number, self.tag >> 3), pos - 1)
                return pos
            pos = self._skip(pos, end, depth)
        self._fail("group %d does not end" % number, end)
        return pos

    def _tag(self, pos, end):
        """Read a tag into `tag`; the caller knows that pos < end."""
        byte = self.buf[pos]
        if 8 <= byte < 128:
            self.tag = byte
            return pos + 1
        return self._long_tag(pos, end)

    def _long_tag(self, pos, end):
        start = pos
        pos = self._varint(pos, end)
        if pos - start > 5 or self.value > UINT32_MAX:
            self._fail("tag of more than 32 bits", start)
        if self.value < 8:
            self._fail("field number 0", start)
        self.tag = self.value
        return pos

    def _length(self, pos, end):
        """Read a length into `size` and make sure that so many bytes are left."""
        if pos < end:
            byte = self.buf[pos]
            if byte < 128 and byte < end - pos:
                self.size = byte
                return pos + 1
        return self._long_length(pos, end)

    def _long_length(self, pos, end):
        start = pos
        pos = self._varint(pos, end)
        if pos - start > 5 or self.value > 0x7FFFFFFF:
            self._fail("length of more than 31 bits", start)
        self.size = self.value
        if self.size > end - pos:
            self._fail("length %d with %d bytes left" % (self.size, end - pos), start)
        return pos

    def _varint(self, pos, end):
        """Read a varint into `value`, its low 64 bits."""
        value = 0
        shift = 0
        start = pos
        while pos < end:
            byte = self.buf[pos]
            pos += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if shift == 63 and byte > 1:
                    self._fail("varint of more than 64 bits", start)
                self.value = value
                return pos
            shift += 7
            if shift > 63:
                self._fail("varint of more than 10 bytes", start)
        self._fail("varint cut short", start)
        return pos

    def _fixed(self, pos, end, size):
        if end - pos < size:
            self._fail("%d bytes needed, %d left" % (size, end - pos), pos)
        if size == 8:
            self.value = _little_endian(self.buf, pos)
        else:
            value = 0
            for i in range(4):
                byte = self.buf[pos + i]
                value |= byte << (8 * i)
            self.value = value
        return pos + size

    def _enum(self):
        """The varint just read as protobuf reads an enum: its low 32 bits, signed."""
        low = self.value & UINT32_MAX
        return low - ((low >> 31) << 32)

    def _signed(self, value):
        """The same 64 bits as a signed number."""
        sign = 1
        sign = sign << 63
        return (value ^ sign) - sign

    def _string(self, pos, end):
        """Read the length into `size`, check that the bytes are UTF-8, return the offset behind them."""
        pos = self._length(pos, end)
        last = pos + self.size
        self._text(pos, last)
        return last

    def _text(self, pos, end):
        """Check that the bytes are UTF-8. Nearly all are ASCII, which shows sixteen bytes at a time.

        The last sixteen may begin before the text: what stands there costs a closer look at worst.
        """
        start = pos
        bits = 0
        while end - pos > 16:
            bits |= _sixteen(self.buf, pos)
            pos += 16
        bits |= _sixteen(self.buf, end - 16) if end >= 16 else 128
        if bits >= 128:
            self._utf8(start, end)

    def _utf8(self, pos, end):
        """RFC 3629: no over-long forms, no surrogates, nothing above U+10FFFF."""
        while pos < end:
            byte = self.buf[pos]
            if byte < 0x80:
                pos += 1
                continue
            low = 0x80
            high = 0xBF
            if 0xC2 <= byte <= 0xDF:
                more = 1
            elif 0xE0 <= byte <= 0xEF:
                more = 2
                if byte == 0xE0:
                    low = 0xA0
                elif byte == 0xED:
                    high = 0x9F
            elif 0xF0 <= byte <= 0xF4:
                more = 3
                if byte == 0xF0:
                    low = 0x90
                elif byte == 0xF4:
                    high = 0x8F
            else:
                more = 0
            if more == 0 or more >= end - pos or not low <= self.buf[pos + 1] <= high:
                self._fail("string that is not UTF-8", pos)
            for i in range(2, more + 1):
                if self.buf[pos + i] & 0xC0 != 0x80:
                    self._fail("string that is not UTF-8", pos)
            pos += more + 1

    def _fail(self, reason, pos):
        raise WireError(reason, pos - self.origin)

    def _grown(self, table, width):
        if len(table) >= ROWS_MAX * width:
            self.full = True
            raise WireError("more than %d parts in one batch" % ROWS_MAX, 0)
        grown = np.empty(min(2 * len(table), ROWS_MAX * width), np.int64)
        grown[: len(table)] = table
        return grown


def _sixteen(buf, at):
    """The bits that are set in any of sixteen bytes."""
    bits = 0
    for i in range(16):
        bits |= buf[at + i]
    return bits


def _little_endian(buf, at):
    """Eight bytes as a number, the last counts most."""
    value = 0
    for i in range(8):
        byte = buf[at + i]
        value |= byte << (8 * i)
    return value


def _big_endian(buf, at):
    """Eight bytes as a number, the first counts most."""
    value = 0
    for i in range(8):
        byte = buf[at + i]
        value |= byte << (56 - 8 * i)
    return value
