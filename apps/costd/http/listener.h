/* listener.h - a socket to listen on: TCP, a Unix socket, or one that was inherited.
 *
 * Opening binds it and looks at what it is bound to, so that the caller can refuse an address before the
 * first client is let in; listener_begin() lets them in. */
#ifndef LISTENER_H
#define LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <costinfer/status.h>

struct listener {
    int fd;         /* -1: closed, or another's by now */
    bool inherited; /* it listens already */
    bool is_unix;
    bool is_private; /* only this machine can reach it: a loopback address or a Unix socket */
    uint16_t port;   /* 0: a Unix socket */
    /* Of a Unix socket that we made; else NULL.  It is removed only while it is still this file. */
    char *path;
    dev_t device;
    ino_t inode;
};

/* "HOST:PORT" or "[V6]:PORT" in two parts; true when it is one. */
bool listener_split(const char *address, char host[256], char port[6]);

/* Whether it has the form of an address: "unix:PATH", or one that splits. */
bool listener_address_is_good(const char *address);

enum cinf_status listener_open(struct listener *out, const char *address);
enum cinf_status listener_inherit(struct listener *out, int fd);
enum cinf_status listener_begin(const struct listener *listener);

/* Closes it, if it is still open, and removes the Unix socket that listener_open() made, unless another has
 * taken its place. */
void listener_close(struct listener *listener);

#endif
