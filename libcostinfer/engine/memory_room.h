/* memory_room.h - whether a model fits into memory beside those that are loaded. */
#ifndef MEMORY_ROOM_H
#define MEMORY_ROOM_H

#include <stdint.h>

#include <costinfer/status.h>

struct cinf_engine;

/* CINF_ENOMEM, with the numbers, when the device has less than `bytes` left.  On the scheduler's thread. */
enum cinf_status memory_room_check(struct cinf_engine *e, uint64_t bytes);

#endif
