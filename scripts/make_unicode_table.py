#!/usr/bin/env python3
"""Writes the tables of libcostinfer/text: what Unicode says about characters.

    scripts/make_unicode_table.py classes > libcostinfer/text/unicode_table.h
    scripts/make_unicode_table.py normal > libcostinfer/text/unicode_normal_table.h

The data is the Unicode database of the Python that runs this.

classes: letters are the general categories L*, numbers N*.  Spaces are the property White_Space, which Python
does not have by that name: the categories Z* and six control characters.  Words are as UTS #18 defines \\w:
Alphabetic (L*, Nl, some marks and letters in circles and squares), M*, Nd, Pc and Join_Control; the symbols
and the two joiners are written down here.  Also the general category of every character.

normal: decompositions, compositions, canonical combining classes and lower case.
"""

import sys
import unicodedata

OTHER, LETTER, NUMBER, SPACE = range(4)
SPACE_CONTROLS = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}
ALPHABETIC_SYMBOLS = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
JOINERS = (0x200C, 0x200D)
CATEGORIES = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co".split()
HANGUL = range(0xAC00, 0xD7A4)
SURROGATES = range(0xD800, 0xE000)


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


def changes_of(values, bits):
    """(code point << bits | value from there on), wherever the value changes."""
    return [c << bits | values[c] for c in range(len(values)) if c == 0 or values[c] != values[c - 1]]


def rows(items, per_row):
    for i in range(0, len(items), per_row):
        yield "    " + ", ".join(items[i : i + per_row]) + ","


def print_array(name, items, kind="uint32_t", per_row=10):
    print(f"static const {kind} {name}[] = {{")
    print("\n".join(rows(items, per_row)))
    print("};\n")


def hexadecimal(values):
    return [f"0x{value:06x}" for value in values]


def print_head(name, comment):
    print(f"""/* {name}.h - made by scripts/make_unicode_table.py from Unicode {unicodedata.unidata_version}; do not edit.
 *
{comment} */
#ifndef {name.upper()}_H
#define {name.upper()}_H

#include <stdint.h>

/* clang-format off */""")


def print_end():
    print("/* clang-format on */\n\n#endif")


def print_classes():
    codes = range(sys.maxunicode + 1)
    classes = [class_of(code) for code in codes]
    changes = changes_of(classes, 2)
    words = changes_of([is_word(code) for code in codes], 2)
    categories = changes_of([CATEGORIES.index(unicodedata.category(chr(code))) for code in codes], 5)
    print_head("unicode_table", f"""\
 * A class is the value of an enum unicode_class.  {len(changes)} places where the class changes, ascending: the
 * code point shifted left by two, and in the low two bits the class from there on.  Likewise {len(words)} places
 * where words begin (1) and end (0), and {len(categories)} places where the general category, the value of an
 * enum unicode_category in the low five bits, changes.""")
    print_array("unicode_ascii", [str(c) for c in classes[:128]], "uint8_t", 32)
    print_array("unicode_changes", hexadecimal(changes))
    print_array("unicode_words", hexadecimal(words))
    print_array("unicode_categories", [f"0x{change:07x}" for change in categories])
    print_end()


def decompositions(form, unless):
    """(code, its full decomposition) where `form` changes a character in another way than `unless` does."""
    found = []
    for code in range(sys.maxunicode + 1):
        if code in HANGUL or code in SURROGATES:
            continue
        whole = unicodedata.normalize(form, chr(code))
        if whole != chr(code) and whole != (unless and unicodedata.normalize(unless, chr(code))):
            found.append((code, whole))
    return found


def print_decompositions(name, entries, pool):
    """Three numbers an entry: the code point and the length of what it becomes, and where that is in the pool."""
    keys, places = [], []
    for code, whole in entries:
        assert len(whole) < 32
        keys.append(code << 5 | len(whole))
        places.append(len(pool))
        pool.extend(ord(c) for c in whole)
    assert len(pool) < 65536
    print_array(f"{name}_keys", [f"0x{key:07x}" for key in keys])
    print_array(f"{name}_places", [str(place) for place in places], "uint16_t", 16)


def compositions():
    found = []
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<") and code not in HANGUL:
            first, second = (int(part, 16) for part in parts)
            if unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code):
                found.append((first, second, code))
    return sorted(found)


def print_normal():
    codes = range(sys.maxunicode + 1)
    canonical, compatible = decompositions("NFD", None), decompositions("NFKD", "NFD")
    classes = changes_of([unicodedata.combining(chr(code)) for code in codes], 8)
    composed = compositions()
    # Rust's char::to_lowercase: without the rules for a word's end; U+0130 alone has two characters.
    lower = [(c, ord(chr(c).lower())) for c in codes if len(chr(c).lower()) == 1 and chr(c).lower() != chr(c)]
    assert [c for c in codes if len(chr(c).lower()) != 1] == [0x130]
    print_head("unicode_normal_table", f"""\
 * {len(canonical)} canonical and {len(compatible)} compatibility decompositions, in full, without Hangul's: the code
 * point shifted left by five and the length, and where the characters are in unicode_pool.  {len(composed)} pairs that
 * compose, as first, second, whole.  {len(classes)} places where the canonical combining class changes, the class in the
 * low eight bits.  {len(lower)} characters with a lower case, each followed by it; U+0130 has two characters.""")
    pool = []
    print_decompositions("unicode_canonical", canonical, pool)
    print_decompositions("unicode_compatible", compatible, pool)
    print_array("unicode_pool", [f"0x{code:05x}" for code in pool], per_row=12)
    print_array("unicode_composed", [f"0x{a:05x}, 0x{b:05x}, 0x{c:05x}" for a, b, c in composed], per_row=4)
    print_array("unicode_combining", [f"0x{change:08x}" for change in classes])
    print_array("unicode_lower", [f"0x{a:05x}, 0x{b:05x}" for a, b in lower], per_row=6)
    print_end()


def main():
    writers = {"classes": print_classes, "normal": print_normal}
    if len(sys.argv) != 2 or sys.argv[1] not in writers:
        sys.exit(__doc__)
    writers[sys.argv[1]]()


if __name__ == "__main__":
    main()
