/* columns.h - rows of two columns for --help, aligned by what is displayed and not by bytes. */
#ifndef COLUMNS_H
#define COLUMNS_H

/* Prints `left`, and `text` beside it, broken at spaces so that lines stay within a terminal of 100 columns.
 */
void columns_print(const char *left, const char *text);

#endif
