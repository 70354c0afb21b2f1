/* tiny_tokenizer.h - a byte-level tokenizer small enough to write down, for tests that need the files of one.
 *
 * Ids 0 to 255 are the bytes in order of value, then one id a merge in order, then <|endoftext|>. */
#ifndef TINY_TOKENIZER_H
#define TINY_TOKENIZER_H

#include <stdio.h>
#include <string.h>

#include "strbuf.h"
#include "support.h"
#include "utf8.h"

/* As the files spell them: C4 A0 is the space. */
static const char *const tiny_merges[] = {
    "\xC4\xA0 t",
    "h e",
    "\xC4\xA0t he",
    "i n",
    "a a",
    "aa aa",
    "l l",
    "\xC4\xA0 \xC4\xA0",
    "\xC3\xA2 \xC4\xA4",
    "\xC3\xA2\xC4\xA4 \xC2\xAC", /* E2 82, and E2 82 AC: the euro sign */
};
enum {
    TINY_MERGES = sizeof tiny_merges / sizeof tiny_merges[0],
    TINY_END_OF_TEXT = 256 + TINY_MERGES,
    TINY_SIZE,
};

/* The character that stands for a byte in the files: itself if Latin-1 prints it, else U+0100 and up. */
static uint32_t tiny_character(int byte)
{
    uint32_t next = 256;
    for (int b = 0; b < 256; b++) {
        int prints = (b > 32 && b < 127) || (b > 160 && b < 256 && b != 173);
        if (b == byte)
            return prints ? (uint32_t)b : next;
        next += !prints;
    }
    return 0;
}

static void tiny_vocab(struct strbuf *b)
{
    strbuf_puts(b, "{");
    for (int byte = 0; byte < 256; byte++) {
        char text[4];
        strbuf_put_json(b, text, utf8_write(text, tiny_character(byte)));
        strbuf_printf(b, ": %d, ", byte);
    }
    for (int i = 0; i < TINY_MERGES; i++) {
        const char *space = strchr(tiny_merges[i], ' ');
        strbuf_printf(b, "\"%.*s%s\": %d, ", (int)(space - tiny_merges[i]), tiny_merges[i], space + 1,
                      256 + i);
    }
    strbuf_printf(b, "\"<|endoftext|>\": %d}", TINY_END_OF_TEXT);
}

/* Writes vocab.json and merges.txt, and returns the folder. */
static inline char *tiny_tokenizer(void)
{
    struct strbuf b = { 0 };
    char *folder = support_temp_folder();
    tiny_vocab(&b);
    support_write(folder, "vocab.json", b.text, (long)b.len);
    strbuf_clear(&b);
    strbuf_puts(&b, "#version: 0.2\n");
    for (int i = 0; i < TINY_MERGES; i++)
        strbuf_printf(&b, "%s\n", tiny_merges[i]);
    support_write(folder, "merges.txt", b.text, (long)b.len);
    strbuf_free(&b);
    return folder;
}

#endif
