/* manual.h - what --help prints. */
#ifndef MANUAL_H
#define MANUAL_H

void manual_print(void);

#endif
