#!/usr/bin/env python3
"""Writes libcostinfer/text/unicode_table.h: where letters, numbers, spaces and words lie in Unicode.

    scripts/make_unicode_table.py > libcostinfer/text/unicode_table.h

The data is the Unicode database of the Python that runs this.  Letters are the general categories L*,
numbers N*.  Spaces are the property White_Space, which Python does not have by that name: the categories
Z* and six control characters.  Words are as UTS #18 defines \\w: Alphabetic (L*, Nl, some marks and letters
in circles and squares), M*, Nd, Pc and Join_Control; the symbols and the two joiners are written down here.
"""

import sys
import unicodedata

OTHER, LETTER, NUMBER, SPACE = range(4)
SPACE_CONTROLS = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}
ALPHABETIC_SYMBOLS = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
JOINERS = (0x200C, 0x200D)


def class_of(code):
    category = unicodedata.category(chr(code))
    if category[0] == "L":
        return LETTER
    if category[0] == "N":
        return NUMBER
    if category[0] == "Z" or code in SPACE_CONTROLS:
        return SPACE
    return OTHER


def is_word(code):
    category = unicodedata.category(chr(code))
    return int(category[0] in "LM" or category in ("Nd", "Nl", "Pc") or code in JOINERS
               or any(first <= code <= last for first, last in ALPHABETIC_SYMBOLS))


def changes_of(values):
    """(code point << 2 | value from there on), wherever the value changes."""
    return [c << 2 | values[c] for c in range(len(values)) if c == 0 or values[c] != values[c - 1]]


def rows(items, per_row):
    for i in range(0, len(items), per_row):
        yield "    " + ", ".join(items[i : i + per_row]) + ","


def main():
    classes = [class_of(code) for code in range(sys.maxunicode + 1)]
    changes = changes_of(classes)
    words = changes_of([is_word(code) for code in range(sys.maxunicode + 1)])
    print(f"""/* unicode_table.h - made by scripts/make_unicode_table.py from Unicode {unicodedata.unidata_version}; do not edit.
 *
 * A class is the value of an enum unicode_class.  {len(changes)} places where the class changes, ascending: the
 * code point shifted left by two, and in the low two bits the class from there on.  Likewise {len(words)} places
 * where words begin (1) and end (0). */
#ifndef UNICODE_TABLE_H
#define UNICODE_TABLE_H

#include <stdint.h>

/* clang-format off */
static const uint8_t unicode_ascii[128] = {{""")
    print("\n".join(rows([str(c) for c in classes[:128]], 32)))
    print("};\n\nstatic const uint32_t unicode_changes[] = {")
    print("\n".join(rows([f"0x{change:06x}" for change in changes], 10)))
    print("};\n\nstatic const uint32_t unicode_words[] = {")
    print("\n".join(rows([f"0x{change:06x}" for change in words], 10)))
    print("};\n/* clang-format on */\n\n#endif")


if __name__ == "__main__":
    main()
