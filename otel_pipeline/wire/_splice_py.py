"""Writes a batch anew with its edits: what is untouched is copied as it stands, enclosing lengths are put right.

Compiled as `_splice_c` with the types of `_splice_c.pxd`; `kernel.py` chooses the variant.

Two passes. The first adds up the new size of every row, scope and group from the inside out; the second walks them in
the order of the bytes with a cursor: everything between two changes is one copy. A scope or a group that loses all its
rows goes with them. The cells are those of `cells.py`.
"""

import numpy as np


class Splicer:
    """One rewrite of the batch `data` with the tables of its scan (int64, one line a row, scope or group).

    The pieces to put in stand end to end in `fragments`, between `bounds` (int64, one more than pieces). A code is the
    index of a piece; -1 leaves things as they are, -2 removes.
    """

    def __init__(self, data, rows, scopes, groups, fragments, bounds):
        self.data = data
        self.buf = data
        self.rows = rows.reshape(-1)
        self.row_count = rows.shape[0]
        self.width = rows.shape[1]
        self.scopes = scopes.reshape(-1)
        self.scope_count = scopes.shape[0]
        self.groups = groups.reshape(-1)
        self.group_count = groups.shape[0]
        self.fragments = fragments
        self.frag = fragments
        self.bounds = bounds
        self.row_sizes = np.full(self.row_count, -2, np.int64)
        self.scope_sizes = np.full(self.scope_count, -2, np.int64)
        self.group_sizes = np.full(self.group_count, -2, np.int64)

    def splice(self, at_cells, end_cells, codes, keep, group_codes):
        """The bytes of the batch after its edits.

        Edit e of row r is codes[e, r] (int32): it takes the place of the field between the offsets in the cells
        at_cells[e] and end_cells[e], or goes to the row's end where the row has no such field. `keep` (uint8 a row)
        drops a row where it is 0, group_codes (int32 a group) replace its Resource. A fragment is a complete field with
        its tag.
        """
        self.at_cells = at_cells
        self.end_cells = end_cells
        self.edit_count = len(at_cells)
        self.codes = codes.reshape(-1)
        self.keep = keep
        self.group_codes = group_codes
        self.order = np.zeros(self.edit_count + 1, np.int64)
        size = self._measure()
        out = bytearray(size)
        if size:
            self.out = out
            self._write(size)
        return bytes(out)

    # -- first pass: sizes ---------------------------------------------------------------------------------------------

    def _measure(self):
        size = len(self.data)
        for group in range(self.group_count):
            base = group * 9
            payload = self.groups[base + 2] - self.groups[base + 1]
            touched = self.group_codes[group] >= 0
            if touched:
                payload += self._exchange(self.group_codes[group], self.groups[base + 6], self.groups[base + 8])
            rows_before = 0
            rows_after = 0
            for scope in range(self.groups[base + 4], self.groups[base + 5]):
                line = scope * 9
                rows_before += self.scopes[line + 5] - self.scopes[line + 4]
                rows_after += self._measure_scope(scope)
                change = self._change(self.scope_sizes[scope], self.scopes[line], self.scopes[line + 2])
                payload += change
                touched = touched or self.scope_sizes[scope] != -2
            if rows_before > 0 and rows_after == 0:
                self.group_sizes[group] = -1
            elif touched:
                self.group_sizes[group] = payload
            size += self._change(self.group_sizes[group], self.groups[base], self.groups[base + 2])
        return size

    def _measure_scope(self, scope):
        """Measure a scope; returns how many rows it keeps."""
        base = scope * 9
        payload = self.scopes[base + 2] - self.scopes[base + 1]
        touched = False
        first = self.scopes[base + 4]
        last = self.scopes[base + 5]
        kept = last - first
        for row in range(first, last):
            size = self._measure_row(row)
            if size != -2:
                touched = True
                payload += self._change(size, self.rows[row * self.width], self.rows[row * self.width + 2])
                if size == -1:
                    kept -= 1
        if kept == 0 and last > first:
            self.scope_sizes[scope] = -1
        elif touched:
            self.scope_sizes[scope] = payload
        return kept

    def _measure_row(self, row):
        """The new payload size of a row; -1: it goes, -2: it stays as it is."""
        size = -2
        base = row * self.width
        if self.keep[row] == 0:
            size = -1
        else:
            change = 0
            touched = False
            for edit in range(self.edit_count):
                code = self.codes[edit * self.row_count + row]
                if code == -1:
                    continue
                at = self.rows[base + self.at_cells[edit]]
                if code >= 0 or at:
                    touched = True
                    change += self._exchange(code, at, self.rows[base + self.end_cells[edit]])
            if touched:
                size = self.rows[base + 2] - self.rows[base + 1] + change
        self.row_sizes[row] = size
        return size

    def _exchange(self, code, at, end):
        """By how many bytes a message grows when the field at[..end] (none if at is 0) gives way to a fragment."""
        change = 0
        if at:
            change -= end - at
        if code >= 0:
            change += self.bounds[code + 1] - self.bounds[code]
        return change

    def _change(self, size, at, end):
        """By how many bytes the parent grows when a field of it gets the payload `size`."""
        if size == -2:
            return 0
        if size == -1:
            return at - end
        return 1 + self._varint_size(size) + size - (end - at)

    def _varint_size(self, value):
        size = 1
        while value > 127:
            value >>= 7
            size += 1
        return size

    # -- second pass: bytes --------------------------------------------------------------------------------------------

    def _write(self, size):
        self.at = 0
        self.cursor = 0
        for group in range(self.group_count):
            base = group * 9
            if self.group_sizes[group] == -2:
                continue
            self._copy_to(self.groups[base])
            if self.group_sizes[group] == -1:
                self.cursor = self.groups[base + 2]
                continue
            self._open(10, self.group_sizes[group], self.groups[base + 1])
            replaced = self.group_codes[group] < 0
            for scope in range(self.groups[base + 4], self.groups[base + 5]):
                if not replaced and 0 < self.groups[base + 6] < self.scopes[scope * 9]:
                    self._replace(self.group_codes[group], self.groups[base + 6], self.groups[base + 8])
                    replaced = True
                self._write_scope(scope)
            if not replaced:
                self._replace(self.group_codes[group], self.groups[base + 6], self.groups[base + 8])
            self._copy_to(self.groups[base + 2])
        self._copy_to(len(self.data))
        if self.at != size:
            raise AssertionError("measured %d bytes, wrote %d" % (size, self.at))

    def _write_scope(self, scope):
        base = scope * 9
        if self.scope_sizes[scope] == -1:
            self._copy_to(self.scopes[base])
            self.cursor = self.scopes[base + 2]
        elif self.scope_sizes[scope] >= 0:
            self._copy_to(self.scopes[base])
            self._open(18, self.scope_sizes[scope], self.scopes[base + 1])
            for row in range(self.scopes[base + 4], self.scopes[base + 5]):
                if self.row_sizes[row] != -2:
                    self._write_row(row)
            self._copy_to(self.scopes[base + 2])

    def _write_row(self, row):
        base = row * self.width
        self._copy_to(self.rows[base])
        if self.row_sizes[row] >= 0:
            self._open(18, self.row_sizes[row], self.rows[base + 1])
            self._write_edits(row, base)
        self.cursor = self.rows[base + 2]

    def _write_edits(self, row, base):
        """The row's payload: fields exchanged where they stand, in the order of the bytes; new ones at the end."""
        count = 0
        for edit in range(self.edit_count):
            if self.codes[edit * self.row_count + row] == -1 or self.rows[base + self.at_cells[edit]] == 0:
                continue
            slot = count
            while slot > 0 and self._stands(base, self.order[slot - 1]) > self._stands(base, edit):
                self.order[slot] = self.order[slot - 1]
                slot -= 1
            self.order[slot] = edit
            count += 1
        for slot in range(count):
            edit = self.order[slot]
            self._replace(
                self.codes[edit * self.row_count + row],
                self.rows[base + self.at_cells[edit]],
                self.rows[base + self.end_cells[edit]],
            )
        self._copy_to(self.rows[base + 2])
        for edit in range(self.edit_count):
            code = self.codes[edit * self.row_count + row]
            if code >= 0 and self.rows[base + self.at_cells[edit]] == 0:
                self._put(code)

    def _stands(self, base, edit):
        return self.rows[base + self.at_cells[edit]]

    def _replace(self, code, at, end):
        if at:
            self._copy_to(at)
            self.cursor = end
        if code >= 0:
            self._put(code)

    def _open(self, tag, size, start):
        """Write a field's tag and new length; the cursor goes to the payload's start."""
        out = self.out
        at = self.at
        out[at] = tag
        at += 1
        while size > 127:
            out[at] = (size & 127) | 128
            at += 1
            size >>= 7
        out[at] = size
        self.at = at + 1
        self.cursor = start

    def _copy_to(self, end):
        if end > self.cursor:
            _copy(self.out, self.at, self.buf, self.cursor, end - self.cursor)
            self.at += end - self.cursor
            self.cursor = end

    def _put(self, code):
        start = self.bounds[code]
        size = self.bounds[code + 1] - start
        _copy(self.out, self.at, self.frag, start, size)
        self.at += size


def _copy(out, at, source, start, size):
    for i in range(size):
        out[at + i] = source[start + i]
