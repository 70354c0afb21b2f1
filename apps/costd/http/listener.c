#include "listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fail.h"
#include "mem.h"

enum { WAITING_MAX = 1024 }; /* connections that the kernel keeps until they are accepted */
static const char unix_prefix[] = "unix:";

static bool is_unix_address(const char *address)
{
    return strncmp(address, unix_prefix, strlen(unix_prefix)) == 0;
}

bool listener_split(const char *address, char host[256], char port[6])
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    unsigned long long number = strtoull(colon + 1, NULL, 10);
    size_t n = (size_t)(colon - address);
    if (address[0] == '[' && address[n - 1] == ']' && n > 2) {
        address++;
        n -= 2;
    } else if (memchr(address, ':', n)) {
        return false;
    }
    if (n > 255 || number > 65535)
        return false;
    memcpy(host, address, n);
    host[n] = '\0';
    snprintf(port, 6, "%u", (unsigned)number);
    return true;
}

bool listener_address_is_good(const char *address)
{
    char host[256], port[6];
    return is_unix_address(address) ? address[strlen(unix_prefix)] != '\0'
                                    : listener_split(address, host, port);
}

static enum cinf_status bind_tcp(int fd, const struct addrinfo *found, const char *address)
{
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, strerror(errno));
    return CINF_OK;
}

static enum cinf_status open_tcp(struct listener *l, const char *address)
{
    char host[256], port[6];
    struct addrinfo *found, hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    if (!listener_split(address, host, port))
        return cinf_fail(CINF_EINVAL, "\"%s\" is not HOST:PORT", address);
    int error = getaddrinfo(host, port, &hints, &found);
    if (error)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, gai_strerror(error));
    l->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    enum cinf_status status = l->fd < 0
                                  ? cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, strerror(errno))
                                  : bind_tcp(l->fd, found, address);
    freeaddrinfo(found);
    return status;
}

/* A socket that exists already and refuses connections was left by a process that was killed. */
static enum cinf_status open_unix(struct listener *l, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path)
        return cinf_fail(CINF_EINVAL, "the path of the socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path));
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd >= 0 && connect(l->fd, (struct sockaddr *)&address, sizeof address) != 0 &&
        errno == ECONNREFUSED)
        (void)unlink(path);
    if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&address, sizeof address) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", path, strerror(errno));
    l->path = mem_copy_text(path);
    return CINF_OK;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    return address->ss_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127;
}

/* Finds out what the socket is bound to; an inherited one says so only here. */
static enum cinf_status look(struct listener *l)
{
    struct sockaddr_storage address = { 0 };
    socklen_t size = sizeof address;
    if (getsockname(l->fd, (struct sockaddr *)&address, &size) != 0)
        return cinf_fail(CINF_EIO, "descriptor %d is not a socket", l->fd);
    l->is_unix = address.ss_family == AF_UNIX;
    l->is_private = l->is_unix || is_loopback(&address);
    if (!l->is_unix)
        l->port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                      : ((struct sockaddr_in *)&address)->sin_port);
    return CINF_OK;
}

enum cinf_status listener_open(struct listener *out, const char *address)
{
    struct listener l = { .fd = -1 };
    enum cinf_status status =
        is_unix_address(address) ? open_unix(&l, address + strlen(unix_prefix)) : open_tcp(&l, address);
    if (status == CINF_OK)
        status = look(&l);
    if (status != CINF_OK) {
        listener_close(&l);
        return status;
    }
    *out = l;
    return CINF_OK;
}

enum cinf_status listener_inherit(struct listener *out, int fd)
{
    struct listener l = { .fd = fd, .inherited = true };
    TRY(look(&l));
    *out = l;
    return CINF_OK;
}

enum cinf_status listener_begin(const struct listener *l)
{
    if (l->inherited || listen(l->fd, WAITING_MAX) == 0)
        return CINF_OK;
    return l->is_unix ? cinf_fail(CINF_EIO, "cannot listen on %s: %s", l->path, strerror(errno))
                      : cinf_fail(CINF_EIO, "cannot listen on port %u: %s", l->port, strerror(errno));
}

void listener_close(struct listener *l)
{
    if (l->fd >= 0)
        close(l->fd);
    if (l->path)
        (void)unlink(l->path);
    mem_free(l->path);
    l->fd = -1;
    l->path = NULL;
}
