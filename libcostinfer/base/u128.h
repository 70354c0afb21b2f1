/* u128.h - the 128-bit integer of gcc and clang, in the one spelling that -Wpedantic accepts. */
#ifndef U128_H
#define U128_H

__extension__ typedef unsigned __int128 u128;

#endif
