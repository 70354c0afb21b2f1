/* wide.h - the 128-bit integer of gcc and clang, in the one spelling that -Wpedantic lets pass. */
#ifndef WIDE_H
#define WIDE_H

__extension__ typedef unsigned __int128 wide;

#endif
