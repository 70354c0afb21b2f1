#!/usr/bin/env python3
"""Writes libcostinfer/text/unicode_table.h: where letters, numbers and spaces lie in Unicode.

    scripts/make_unicode_table.py > libcostinfer/text/unicode_table.h

The data is the Unicode database of the Python that runs this.  Letters are the general categories L*,
numbers N*.  Spaces are the property White_Space, which Python does not have by that name: the categories
Z* and six control characters.
"""

import sys
import unicodedata

OTHER, LETTER, NUMBER, SPACE = range(4)
SPACE_CONTROLS = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}


def class_of(code):
    category = unicodedata.category(chr(code))
    if category[0] == "L":
        return LETTER
    if category[0] == "N":
        return NUMBER
    if category[0] == "Z" or code in SPACE_CONTROLS:
        return SPACE
    return OTHER


def rows(items, per_row):
    for i in range(0, len(items), per_row):
        yield "    " + ", ".join(items[i : i + per_row]) + ","


def main():
    classes = [class_of(code) for code in range(sys.maxunicode + 1)]
    changes = [c for c in range(len(classes)) if c == 0 or classes[c] != classes[c - 1]]
    print(f"""/* unicode_table.h - made by scripts/make_unicode_table.py from Unicode {unicodedata.unidata_version}; do not edit.
 *
 * A class is the value of an enum unicode_class.  {len(changes)} places where the class changes, ascending: the
 * code point shifted left by two, and in the low two bits the class from there on. */
#ifndef UNICODE_TABLE_H
#define UNICODE_TABLE_H

#include <stdint.h>

/* clang-format off */
static const uint8_t unicode_ascii[128] = {{""")
    print("\n".join(rows([str(c) for c in classes[:128]], 32)))
    print("};\n\nstatic const uint32_t unicode_changes[] = {")
    print("\n".join(rows([f"0x{c << 2 | classes[c]:06x}" for c in changes], 10)))
    print("};\n/* clang-format on */\n\n#endif")


if __name__ == "__main__":
    main()
