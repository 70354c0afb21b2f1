#include "columns.h"

#include <stdio.h>
#include <string.h>

enum { INDENT = 2, LEFT = 30, WIDTH = 100 };

/* Characters, of which each takes one column: the manual has no others. */
static int width(const char *text, size_t n)
{
    int columns = 0;
    for (size_t i = 0; i < n; i++)
        columns += ((unsigned char)text[i] & 0xC0) != 0x80;
    return columns;
}

void columns_print(const char *left, const char *text)
{
    int used = width(left, strlen(left));
    printf("%*s%s%*s", INDENT, "", left, used < LEFT ? LEFT - used : 0, "");
    int column = INDENT + (used > LEFT ? used : LEFT);
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column + 1 + width(text, n) > WIDTH) {
            printf("\n%*s", INDENT + LEFT, "");
            column = INDENT + LEFT;
        }
        printf(" %.*s", (int)n, text);
        column += 1 + width(text, n);
        text += n + strspn(text + n, " ");
    }
    putchar('\n');
}
