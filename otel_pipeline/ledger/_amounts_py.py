"""Amounts of many spans: whole numbers in, n$ out, exact and rounded once.

Compiled as `_amounts_c` with the types of `_amounts_c.pxd`; `plans.py` chooses the variant.
"""

import numpy as np

NANO_MAX = 4000000000000000000
INPUT = 9
OUTPUT = 10
REQUESTS = 5
FIELDS_END = 17
"""Places among the fields of `plans.py`; the kinds of input tokens are 11 to 14, those of output tokens 15 and 16."""
PLAIN, TOKENS, HARD = range(3)
"""Kinds of plans: a main quantity must be known; tokens of some side; neither, or the numbers could leave 64 bits."""
NOT_KNOWN, KNOWN, NOT_TRIED = range(3)


def amounts(plan, used, places, parts, others):
    """n$ of each row (int64), and whether it is KNOWN, NOT_KNOWN or NOT_TRIED (uint8).

    plan: place of each row's plan, -1 for none; used: quantities, int64 (fields, rows), and places: where these are
    among all fields. By plan: parts (plans, fields), and `others` (plans, 6): kind, main field, whole, step, least,
    fine; all int64. What is not HARD has products below 2**62.
    """
    rows = plan.shape[0]
    nano = np.zeros(rows, np.int64)
    known = np.zeros(rows, np.uint8)
    counted = memoryview(np.zeros(FIELDS_END, np.int64))
    asked = (memoryview(plan), memoryview(used), memoryview(places))
    tables = (memoryview(parts), memoryview(others))
    fill(asked[0], asked[1], asked[2], tables[0], tables[1], counted, memoryview(nano), memoryview(known))
    return nano, known


def fill(plan, used, places, parts, others, counted, nano, known):
    """The same into `nano` and `known`. Interpreted it takes arrays of Python's numbers, too, and is exact for all."""
    for row in range(plan.shape[0]):
        number = plan[row]
        if number < 0:
            continue
        if others[number, 0] == HARD:
            known[row] = NOT_TRIED
            continue
        for field in range(FIELDS_END):
            counted[field] = -1
        counted[REQUESTS] = 1
        for line in range(places.shape[0]):
            counted[places[line]] = used[line, row]
        main = others[number, 1]
        if others[number, 0] == TOKENS:
            good = _tokens(parts, number, counted)
        else:
            good = main >= 0 and counted[main] >= 0 and parts[number, main] >= 0
            if good:
                _round_up(others, number, main, counted)
        if good:
            _charge(parts, number, others[number, 2], counted, row, nano, known)


def _round_up(others, number, main, counted):
    """The main quantity in parts of 1 / fine: a multiple of step, and at least so many."""
    step = others[number, 3]
    exact = counted[main] * others[number, 5]
    if step > 0:
        exact = (exact + step - 1) // step * step
    counted[main] = max(exact, others[number, 4])


def _tokens(parts, number, counted):
    """Whether there are tokens, and a price for each that counts. Of the tokens of a side, those of a kind that has a
    price of its own count there only.
    """
    if counted[INPUT] < 0 and counted[OUTPUT] < 0:
        return False
    for kind in range(OUTPUT + 1, FIELDS_END):
        side = INPUT if kind < 15 else OUTPUT
        own = 0
        if parts[number, kind] >= 0 and counted[side] > 0 and counted[kind] > 0:
            own = min(counted[kind], counted[side])
        counted[kind] = own
        counted[side] -= own
    if parts[number, INPUT] < 0 and counted[INPUT] > 0:
        return False
    return parts[number, OUTPUT] >= 0 or counted[OUTPUT] <= 0


def _charge(parts, number, whole, counted, row, nano, known):
    rough = 0.0
    total = 0
    rest = 0
    for field in range(FIELDS_END):
        price = parts[number, field]
        if price > 0 and counted[field] > 0:
            rough += float(price) * float(counted[field])
    if rough >= float(NANO_MAX) * float(whole):
        return
    for field in range(FIELDS_END):
        price = parts[number, field]
        if price > 0 and counted[field] > 0:
            units = counted[field] // whole
            total += price * units
            rest += price * (counted[field] - units * whole)
    more = rest // whole
    total += more
    rest = 2 * (rest - more * whole)
    if rest > whole or (rest == whole and total % 2 == 1):
        total += 1
    nano[row] = total
    known[row] = KNOWN
